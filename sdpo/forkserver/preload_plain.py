"""What Ray imports besides itself, for the servers. Ray's own library is loaded by the child: it reads the environment then."""

from importlib import import_module

for _module in ("asyncio", "google.protobuf.json_format", "jsonschema", "multiprocessing", "psutil", "requests", "yaml"):
    import_module(_module)
