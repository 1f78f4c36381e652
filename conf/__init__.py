"""The YAML files of the command `psvit-search`, shipped with the package."""
