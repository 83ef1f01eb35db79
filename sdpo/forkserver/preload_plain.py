"""What Ray imports besides itself, for the servers. Ray's own library is loaded by the child: it reads the environment then."""

import asyncio  # noqa: F401
import multiprocessing  # noqa: F401

import jsonschema  # noqa: F401
import psutil  # noqa: F401
import requests  # noqa: F401
import yaml  # noqa: F401
from google.protobuf import descriptor_pb2, json_format, struct_pb2  # noqa: F401
