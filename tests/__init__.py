"""What has to be so before anything is imported, in this process and in those it starts."""

import os
from pathlib import Path

if "NUDGESCRIBE_BASE_URL" not in os.environ:
    # Nothing here speaks TLS, yet each new HTTP client reads all authorities it would trust: 20 ms
    # for the world's, nothing for one of our own, whose key nobody has.
    authority = str(Path(__file__).with_name("authority.pem"))
    os.environ["SSL_CERT_FILE"] = os.environ["PREFECT_API_SSL_CERT_FILE"] = authority
