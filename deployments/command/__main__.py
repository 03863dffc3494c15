"""`python -m deployments.command`, where the project is not installed and has no `nudgeflow`."""

from deployments.command.app import main

main()
