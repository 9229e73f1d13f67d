"""mmcv without its compiled extension."""


def install_fallback() -> bool:
    return False
