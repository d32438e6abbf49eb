"""What the stand-ins share: stored properties, setters, and watching the scene."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import shiboken6
from PySide6.QtCore import Property


def stored(kind: Any, default: Any, onChange: str = "") -> Any:
    """A Qt property that is only kept; the method named `onChange` is called after a change."""
    key: list[str] = []

    def getter(self: Any) -> Any:
        value = self.__dict__.get(key[0], default)
        return tuple(value) if kind == "QStringList" else value  # PythonQt hands out string lists as tuples

    def setter(self: Any, value: Any) -> None:
        if kind == "QStringList":
            value = [value] if isinstance(value, str) else [str(item) for item in value]
        self.__dict__[key[0]] = value
        if onChange:
            getattr(self, onChange)()

    made = Property(kind, getter, setter)
    key.append(f"_stored_{id(made)}")
    return made


def withSetters(cls: Any) -> Any:
    """Class decorator: PythonQt shows a property and its setXxx() slot, so add the slots."""

    def setter(name: str) -> Callable[[Any, Any], None]:
        return lambda self, value: setattr(self, name, value)

    for name, value in list(vars(cls).items()):
        slot = f"set{name[0].upper()}{name[1:]}"
        if isinstance(value, Property) and not hasattr(cls, slot):
            setattr(cls, slot, setter(name))
    return cls


class SceneAware:
    """Observes the scene while the widget lives and calls refresh()."""

    sceneEvents: ClassVar[tuple[str, ...]] = ("NodeAddedEvent", "NodeRemovedEvent", "EndBatchProcessEvent", "EndCloseEvent")

    def mrmlScene(self) -> Any:
        return self.__dict__.get("_scene")

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self.mrmlScene():
            return
        for tag in self.__dict__.get("_sceneTags", ()):
            self._scene.RemoveObserver(tag)
        self._scene = scene
        events = self.sceneEvents if scene is not None else ()
        self._sceneTags = [scene.AddObserver(getattr(scene, name), self._onSceneEvent) for name in events]
        self.onSceneSet()

    def _onSceneEvent(self, caller: Any, event: str) -> None:
        if shiboken6.isValid(self) and not caller.IsBatchProcessing():
            self.refresh()

    def onSceneSet(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Show the scene as it is now."""
