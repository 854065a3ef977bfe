"""Everything with a face: tray, window, pages, table models, wizard. The only room that knows Qt."""
