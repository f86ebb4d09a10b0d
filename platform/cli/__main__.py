"""`python -m tenantry.platform.cli`: the command without its script."""

from tenantry.platform.cli.main import main

main()
