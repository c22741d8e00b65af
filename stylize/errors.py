"""What can be wrong with one image or with a weights file; each message is one sentence for the user."""


class ImageError(ValueError):
    """One image cannot be used; the message says why."""


class ImageSizeError(ImageError):
    """One image has more pixels than may be decoded."""


class WeightsError(ValueError):
    """A weights file cannot be used; the message names the file and what to give instead."""


class DeviceMemoryError(RuntimeError):
    """A single face does not fit into the memory of the device."""
