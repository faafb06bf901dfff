"""The JSON Patch leads from the one object to the other, whatever they are."""

import copy
from typing import Any

from bottleneck_operator.inject.patch import json_patch
from hypothesis import given
from hypothesis import strategies as st

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b/c", "~d", "e.f/~g"]), inner, max_size=3)
    ),
    max_leaves=12,
)


def applied(document: Any, operations: list[dict[str, Any]]) -> Any:
    """``document`` after a patch, by the letter of RFC 6902."""
    document = copy.deepcopy(document)
    for operation in operations:
        keys = [key.replace("~1", "/").replace("~0", "~") for key in operation["path"].split("/")]
        if len(keys) == 1:
            document = operation["value"]
            continue
        holder = document
        for key in keys[1:-1]:
            holder = holder[int(key)] if isinstance(holder, list) else holder[key]
        last: Any = keys[-1]
        if isinstance(holder, list):
            if operation["op"] == "add":
                holder.insert(len(holder) if last == "-" else int(last), operation["value"])
            else:
                assert operation["op"] == "replace"
                holder[int(last)] = operation["value"]
        elif operation["op"] == "remove":
            del holder[last]
        else:
            assert (last in holder) == (operation["op"] == "replace")
            holder[last] = operation["value"]
    return document


@given(values, values)
def test_a_patch_leads_from_one_to_the_other(before: Any, after: Any) -> None:
    assert applied(before, json_patch(before, after)) == after


@given(values)
def test_what_is_equal_needs_no_patch(value: Any) -> None:
    assert json_patch(value, copy.deepcopy(value)) == []


def test_keys_are_escaped_and_lists_are_extended() -> None:
    assert json_patch({"a/b~c": [1]}, {"a/b~c": [2, 3], "d": {}}) == [
        {"op": "replace", "path": "/a~1b~0c/0", "value": 2},
        {"op": "add", "path": "/a~1b~0c/-", "value": 3},
        {"op": "add", "path": "/d", "value": {}},
    ]
