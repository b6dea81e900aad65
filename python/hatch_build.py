"""Puts the binary into the wheel. scripts/wheel calls the build and sets the variables."""
import os

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface


def variable(name):
    value = os.environ.get(name)
    if not value:
        raise RuntimeError("%s isn't set: build the wheel with `make wheel`, which compiles the binary first" % name)
    return value


class Version(MetadataHookInterface):
    def update(self, metadata):
        metadata["version"] = variable("FLEETSCORE_WHEEL_VERSION")


class Binary(BuildHookInterface):
    def initialize(self, version, build_data):
        build_data["tag"] = "py3-none-" + variable("FLEETSCORE_WHEEL_PLATFORM")
        build_data["force_include"][variable("FLEETSCORE_WHEEL_BINARY")] = "fleetscore/bin/fleetscore"


def get_metadata_hook():
    return Version


def get_build_hook():
    return Binary
