"""Health check of the labeling server in its container: the server and its database answer, over TLS.

The certificate is made for the public name, so its name is not checked here; nothing secret is sent.
"""

import os
import ssl
import sys
import urllib.error
import urllib.request

# The server answers to the address that it listens on and to --address; any other host is refused.
ADDRESS = os.environ.get("TRIPHASE_HEALTH", "https://0.0.0.0:8400/ready")


def main() -> int:
    """0 where the page is served; 1, with the reason, where it is not."""
    if not ADDRESS.startswith(("http://", "https://")):
        print(f"TRIPHASE_HEALTH={ADDRESS} is not an http(s) address")
        return 1
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(ADDRESS, timeout=8) as response:
            return int(response.status != 200)
    except (OSError, urllib.error.URLError) as error:
        print(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
