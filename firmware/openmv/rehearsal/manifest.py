freeze("$(BOARD_DIR)", "time.py")  # noqa: F821  (MicroPython's manifest language)
