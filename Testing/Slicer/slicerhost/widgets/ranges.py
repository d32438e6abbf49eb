"""Sliders and ranges with spin boxes."""

from __future__ import annotations

from typing import Any, ClassVar

from PySide6 import QtWidgets as QW
from PySide6.QtCore import Property, Qt, Signal

from .common import stored, withSetters


def _of(child: str, name: str, slot: str) -> Property:
    """A property that is the one of a spin box inside."""
    kind = {"decimals": int, "suffix": str, "prefix": str}.get(name, float)
    return Property(
        kind,
        lambda self: getattr(self, child).property(name),
        lambda self, value: getattr(getattr(self, child), slot)(value),
    )


class ctkDoubleSpinBox(QW.QDoubleSpinBox):
    def setMRMLScene(self, scene: Any) -> None:
        """Only qMRMLSpinBox looks at the scene, for units."""


@withSetters
class ctkSliderWidget(QW.QWidget):
    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    cppSignals: ClassVar = {"valueChanged(double)": "valueChanged", "valueIsChanging(double)": "valueIsChanging"}
    _STEPS = 10000
    pageStep = stored(float, 10.0)
    tickInterval = stored(float, 0.0)
    tracking = stored(bool, True)
    value = _of("_spin", "value", "setValue")
    singleStep = _of("_spin", "singleStep", "setSingleStep")
    decimals = _of("_spin", "decimals", "setDecimals")
    suffix = _of("_spin", "suffix", "setSuffix")
    prefix = _of("_spin", "prefix", "setPrefix")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QW.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider = QW.QSlider(Qt.Orientation.Horizontal, self)
        self._slider.setRange(0, self._STEPS)
        self._spin = QW.QDoubleSpinBox(self)
        self._spin.setRange(0, 99)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._spin)
        self._spin.valueChanged.connect(self._fromSpin)
        self._slider.valueChanged.connect(self._fromSlider)

    def setMRMLScene(self, scene: Any) -> None:
        """Only qMRMLSliderWidget looks at the scene, for units."""

    def _span(self) -> float:
        return (self.maximum - self.minimum) or 1.0

    def _fromSpin(self, value: float) -> None:
        blocked = self._slider.blockSignals(True)
        self._slider.setValue(round((value - self.minimum) / self._span() * self._STEPS))
        self._slider.blockSignals(blocked)
        self.valueChanged.emit(value)

    def _fromSlider(self, position: int) -> None:
        value = self.minimum + position / self._STEPS * self._span()
        step = self.singleStep or 1e-9
        self.valueIsChanging.emit(value)
        self._spin.setValue(self.minimum + round((value - self.minimum) / step) * step)

    def _bounds(self, low: float, high: float) -> None:
        value = self.value
        self._spin.setRange(low, high)
        if self.value == value:
            blocked = self.blockSignals(True)
            self._fromSpin(value)
            self.blockSignals(blocked)

    minimum = Property(
        float,
        lambda self: self._spin.property("minimum"),
        lambda self, value: self._bounds(value, max(value, self.maximum)),
    )
    maximum = Property(
        float,
        lambda self: self._spin.property("maximum"),
        lambda self, value: self._bounds(min(value, self.minimum), value),
    )
    spinBoxVisible = Property(bool, lambda self: not self._spin.isHidden(), lambda self, value: self._spin.setVisible(value))


@withSetters
class ctkRangeWidget(QW.QWidget):
    valuesChanged = Signal(float, float)
    minimumValueChanged = Signal(float)
    maximumValueChanged = Signal(float)
    cppSignals: ClassVar = {
        "valuesChanged(double,double)": "valuesChanged",
        "minimumValueChanged(double)": "minimumValueChanged",
        "maximumValueChanged(double)": "maximumValueChanged",
    }
    minimumValue = _of("_low", "value", "setValue")
    maximumValue = _of("_high", "value", "setValue")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QW.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._low, self._high = QW.QDoubleSpinBox(self), QW.QDoubleSpinBox(self)
        for spin in (self._low, self._high):
            spin.setRange(0, 99)
            layout.addWidget(spin)
            spin.valueChanged.connect(self._changed)
        self._high.setValue(99)

    def setMRMLScene(self, scene: Any) -> None:
        """Only qMRMLRangeWidget looks at the scene, for units."""

    def _changed(self, _: float) -> None:
        self.minimumValueChanged.emit(self.minimumValue)
        self.maximumValueChanged.emit(self.maximumValue)
        self.valuesChanged.emit(self.minimumValue, self.maximumValue)

    def setValues(self, low: float, high: float) -> None:
        self._low.setValue(low)
        self._high.setValue(high)

    def setRange(self, low: float, high: float) -> None:
        self._low.setRange(low, high)
        self._high.setRange(low, high)

    def _both(self, slot: str, value: Any) -> None:
        for spin in (self._low, self._high):
            getattr(spin, slot)(value)

    minimum = Property(float, lambda self: self._low.property("minimum"), lambda self, v: self.setRange(v, self.maximum))
    maximum = Property(float, lambda self: self._low.property("maximum"), lambda self, v: self.setRange(self.minimum, v))
    singleStep = Property(float, lambda self: self._low.property("singleStep"), lambda self, v: self._both("setSingleStep", v))
    decimals = Property(int, lambda self: self._low.property("decimals"), lambda self, v: self._both("setDecimals", v))
    suffix = Property(str, lambda self: self._low.property("suffix"), lambda self, v: self._both("setSuffix", v))


class ctkDoubleSlider(ctkSliderWidget):
    def __init__(self, *args: Any) -> None:
        super().__init__(args[-1] if args and isinstance(args[-1], QW.QWidget) else None)
        self.spinBoxVisible = False


class ctkDoubleRangeSlider(ctkRangeWidget):
    def __init__(self, *args: Any) -> None:
        super().__init__(args[-1] if args and isinstance(args[-1], QW.QWidget) else None)


class qMRMLSliderWidget(ctkSliderWidget):
    pass


class qMRMLRangeWidget(ctkRangeWidget):
    pass


class qMRMLSpinBox(ctkDoubleSpinBox):
    pass
