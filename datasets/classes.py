"""Class names of the annotation files -> labels of the data set, after `keep` and `merge_to`."""

import difflib
from dataclasses import dataclass, field

from datasets.config import DataConfig, DataError


@dataclass(frozen=True)
class ClassMap:
    """`classes` are the data set's; `label(name)` is the number of an annotation's class, None where it is left out."""

    classes: tuple[str, ...]
    known: dict[str, int | None] = field(repr=False)

    def label(self, name: str, source: str) -> int | None:
        """
        Raises:
            DataError: a name that the configuration does not know, with file and remedy.
        """
        try:
            return self.known[name]
        except KeyError:
            near = difflib.get_close_matches(name, list(self.known), n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise DataError(
                f"{source}: unknown class '{name}'{hint}: correct the annotation or add the class to 'names' "
                f"in the data YAML, which has {', '.join(list(self.known)[:30])}"
            ) from None


def class_map(config: DataConfig, default_names: tuple[str, ...]) -> ClassMap:
    """Combine `names` (or the format's own names), `keep` and `merge_to`.

    Raises:
        DataError: `keep` names a class that does not exist.
    """
    names = config.names if config.names is not None else default_names
    kept = config.keep if config.keep is not None else names
    unknown = [name for name in kept if name not in names]
    if unknown:
        raise DataError(f"keep: {', '.join(unknown)} is no class of the data set; it has {', '.join(names)}")
    if config.merge_to is not None:
        return ClassMap((config.merge_to,), {name: 0 if name in kept else None for name in names})
    return ClassMap(kept, {name: kept.index(name) if name in kept else None for name in names})
