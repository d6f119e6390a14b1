"""The `sfsc-timm` command; one module per sub-command."""
