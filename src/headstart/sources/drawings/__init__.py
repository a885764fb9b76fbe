"""The bundled source for drawings and handwriting."""
