"""Set up and run Nudgeflow: Prefect servers, images, the demo, the local stack."""
