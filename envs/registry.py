"""Which environment does a spec name? Names, modules and files become environments here, or refusals that say why not.

A spec is one of three:

- the name of an entry point in the group ``sdpo.environments``: ``"chemistry"``
- a class of an importable module: ``"my_package.my_module:MyClass"``
- a class of a file: ``"path/to/file.py:MyClass"``

Options are checked against the constructor before it is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points

from sdpo.envs.base import Environment
from sdpo.plugins.seam import describe, imported, near

ENTRY_POINT_GROUP = "sdpo.environments"


def available() -> Mapping[str, str]:
    """The installed environments, ``{"chemistry": "sdpo.envs.chemistry:Chemistry", …}``, in alphabetical order."""
    return dict(sorted((entry.name, entry.value) for entry in entry_points(group=ENTRY_POINT_GROUP)))


def make(spec: str, options: Mapping[str, object]) -> Environment:
    """The environment that ``spec`` names, made with ``options`` as keyword arguments.

    Raises ValueError, as a sentence, for whatever keeps it from being made.
    """
    environment_class = find_class(spec)
    _check_options(spec, environment_class, options)
    try:
        environment: object = environment_class(**options)
    except ValueError:
        raise  # the environment's own refusal of an option's value
    except Exception as error:
        raise ValueError(
            f"env {spec!r} must be made by calling its class with the options {dict(options)!r}; "
            f"that raised {describe(error)}: correct the options or the constructor"
        ) from error
    return complete(environment, f"env {spec!r}")


def complete(environment: object, what: str) -> Environment:
    """``environment`` itself. Raises ValueError, as a sentence about ``what``, where it lacks a member that it needs."""
    judges = ("reply", "judge") if hasattr(environment, "reply") else ("verify",)
    missing = [member for member in ("name", "tasks", *judges) if not hasattr(environment, member)]
    if missing:
        raise ValueError(
            f"{what} must be an Environment, with name, tasks and verify (for several turns: name, tasks, reply and judge); "
            f"its class {type(environment).__name__} lacks {', '.join(missing)}: see docs/environments.md"
        )
    assert isinstance(environment, Environment)
    return environment


def needed_options(spec: str) -> list[str]:
    """The options without which ``spec`` cannot be made. Raises ValueError as ``find_class`` does."""
    return [parameter.name for parameter in options_of(find_class(spec)) if parameter.default is parameter.empty]


def options_of(environment_class: type) -> list[inspect.Parameter]:
    """What the constructor takes by keyword, in its order."""
    parameters = inspect.signature(environment_class).parameters.values()
    return [p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]


def timeout_s(spec: str, options: Mapping[str, object]) -> float | None:
    """The option ``timeout_s``, as it is given or as the constructor has it; None where there is none."""
    known = {parameter.name: parameter.default for parameter in options_of(find_class(spec))} | dict(options)
    value = known.get("timeout_s")
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def find_class(spec: str) -> type:
    """The class that ``spec`` names, not yet called. Raises ValueError, as a sentence, where there is none."""
    place, colon, class_name = spec.rpartition(":")
    if not colon:
        installed = available()
        if spec not in installed:
            raise ValueError(
                "env must be an installed environment's name, module:Class or path/to/file.py:Class; "
                f"got {spec!r}{near(spec, installed)}; installed are {_listed(installed)}"
            )
        place, _, class_name = installed[spec].rpartition(":")
    if not place.strip() or not class_name.strip():
        raise ValueError(f"env must name a module and a class, as in module:Class; got {spec!r}: name both")
    module = imported(place, f"env {spec!r}")
    classes = {name: value for name, value in vars(module).items() if isinstance(value, type)}
    if class_name not in classes:
        own = [name for name, value in classes.items() if value.__module__ == module.__name__]
        raise ValueError(
            f"env {spec!r} must name a class of {place}; there is no class {class_name!r}{near(class_name, classes)}; "
            f"it defines {_listed(own)}"
        )
    return classes[class_name]


def _check_options(spec: str, environment_class: type, options: Mapping[str, object]) -> None:
    parameters = inspect.signature(environment_class).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    by_keyword = options_of(environment_class)
    accepted = [parameter.name for parameter in by_keyword]
    for option in options:
        if option not in accepted:
            raise ValueError(
                f"env {spec!r} takes only the options its constructor names; got {option!r}{near(option, accepted)}; "
                f"it accepts {_listed(accepted)}"
            )
    missing = [p.name for p in by_keyword if p.default is p.empty and p.name not in options]
    if missing:
        raise ValueError(
            f"env {spec!r} needs the options {_listed(missing)}; got {_listed(options)}: "
            "add what is missing to the environment's options"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
