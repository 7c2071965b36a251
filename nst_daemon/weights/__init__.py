"""The bundled weights, as package data."""
