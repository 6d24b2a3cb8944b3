"""What the worker processes of the tests run."""

import os
import time


def prepare():
    pass


def answer(payload):
    match payload["do"]:
        case "echo":
            return {"said": payload["said"], "pid": os.getpid()}
        case "hang":
            while True:
                pass
        case "sleep":
            time.sleep(payload["seconds"])
            return {"said": "slept"}
        case "die":
            os._exit(3)
        case "fill":
            return {"size": len(bytearray(payload["mb"] * 1024 * 1024))}
        case "deep":
            return answer(payload) if payload["do"] == "deep" else {}
        case "fail":
            raise ValueError("no such luck")
    return {}
