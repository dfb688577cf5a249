"""Folders that servers and engines take as they are, one module a layout: ``files(networks) -> name -> content``."""
