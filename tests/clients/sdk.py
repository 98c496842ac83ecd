"""The real Python server SDK, driven by sdk-python.test.mjs.

Reads one JSON request a line, {"call": NAME, "args": {...}}, and answers each with one line:
{"result": ...} or {"error": NAME OF THE EXCEPTION, "message": ...}.
"""

import base64
import json
import os
import sys

import pusher


def connect():
    return pusher.Pusher(
        app_id=os.environ["APP_ID"],
        key=os.environ["APP_KEY"],
        secret=os.environ["APP_SECRET"],
        host=os.environ["HUB_HOST"],
        port=int(os.environ["HUB_PORT"]),
        ssl=False,
        timeout=10,
        encryption_master_key_base64=base64.b64encode(bytes([7]) * 32).decode(),
    )


def plain(value):
    """The SDK gives bytes where it means base64 text."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return value.decode() if isinstance(value, bytes) else value


def main():
    client = connect()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            result = getattr(client, request["call"])(**request["args"])
            answer = {"result": plain(result)}
        except Exception as error:  # The test decides which errors are right.
            answer = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
