"""All Qt: tray, window, pages, table models, wizard."""
