"""Stands for the Python of vLLM's environment: answers /health where vLLM would, with a child process.

`--behave` of its arguments says how: well, fails (prints an error and ends), silent (listens on nothing), or dies (at
the first adapter that it is given).
"""

import http.server
import os
import subprocess
import sys
import time
from pathlib import Path


def main(words: list[str]) -> None:
    if words[0] == "-c":  # the look for the package
        return
    behavior = words[words.index("--behave") + 1] if "--behave" in words else "well"
    if behavior == "fails":
        print("loading", flush=True)
        print("ValueError: the model has no weights", flush=True)
        sys.exit(3)
    if behavior == "silent":
        time.sleep(60)
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    pids = Path(words[words.index("--pids") + 1])
    aside = pids.with_name(f"{pids.name}.{os.getpid()}")
    aside.write_text(f"{os.getpid()} {helper.pid}")
    aside.replace(pids)  # whoever reads them finds both

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_open = self.path == "/health" or self.headers["Authorization"] == f"Bearer {os.environ['VLLM_API_KEY']}"
            self.send_response(200 if is_open else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            print("torch.OutOfMemoryError: no room for the adapter", flush=True)
            os._exit(9)

        def log_message(self, *_: object) -> None:
            pass

    http.server.HTTPServer(("127.0.0.1", int(words[words.index("--port") + 1])), Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
