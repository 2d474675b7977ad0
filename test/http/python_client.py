"""What Python's postgrest does with the API: prints a line "ok WHAT" or "not ok WHAT" for each thing.

API, OPERATOR and VIEWER come from the environment.
"""

import os
import traceback

from postgrest import SyncPostgrestClient
from postgrest.exceptions import APIError


def client(token):
    return SyncPostgrestClient(os.environ["API"], schema="quota_api", headers={"Authorization": f"Bearer {token}"})


operator = client(os.environ["OPERATOR"])
viewer = client(os.environ["VIEWER"])
SINGLE = {"type": "single", "amount": 5, "model": "m", "condition": "is-vip(1)"}
STEPS = []


def step(what):
    return lambda code: STEPS.append((what, code))


def error_of(request):
    """The error that a request must end with."""
    try:
        request.execute()
    except APIError as error:
        return error
    raise AssertionError("no error came")


def names(reply):
    return [row["name"] for row in reply.data]


@step("insert, and what was inserted comes back")
def _():
    row = operator.from_("strategies").insert({**SINGLE, "name": "py-1", "title": "One"}).execute().data[0]
    assert (row["name"], row["enabled"], row["condition"]) == ("py-1", True, "is-vip(1)"), row


@step("bulk insert with differing keys takes the defaults")
def _():
    rows = [{**SINGLE, "name": "py-2"},
            {**SINGLE, "name": "py-3", "title": "Three", "time_zone": "Asia/Shanghai", "enabled": False}]
    data = operator.from_("strategies").insert(rows, default_to_null=False).execute().data
    got = [(row["name"], row["title"], row["time_zone"], row["enabled"]) for row in data]
    assert got == [("py-2", "", "UTC", True), ("py-3", "Three", "Asia/Shanghai", False)], got


@step("list, filter, order")
def _():
    reply = viewer.from_("strategies").select("name").like("name", "py-%").eq("enabled", True).order("name", desc=True).execute()
    assert names(reply) == ["py-2", "py-1"], reply.data


@step("or, in, is null")
def _():
    reply = (viewer.from_("strategies").select("name").in_("name", ["py-1", "py-2", "py-3"])
             .or_("title.eq.One,enabled.is.false").is_("periodic_expr", "null").order("name").execute())
    assert names(reply) == ["py-1", "py-3"], reply.data


@step("range and exact count")
def _():
    reply = viewer.from_("strategies").select("name", count="exact").like("name", "py-%").order("name").range(1, 1).execute()
    assert (names(reply), reply.count) == (["py-2"], 3), reply


@step("planned count")
def _():
    reply = viewer.from_("executions").select("id", count="planned", head=True).execute()
    assert isinstance(reply.count, int), reply


@step("maybe_single of nothing")
def _():
    reply = viewer.from_("strategies").select("*").eq("name", "py-none").maybe_single().execute()
    assert reply is None or reply.data is None, reply


@step("update")
def _():
    data = operator.from_("strategies").update({"amount": 7}).eq("name", "py-1").execute().data
    assert [(row["amount"], row["version"]) for row in data] == [(7, 2)], data


@step("upsert by name")
def _():
    rows = [{**SINGLE, "name": "py-1", "amount": 8}, {**SINGLE, "name": "py-4", "amount": 9}]
    data = operator.from_("strategies").upsert(rows, on_conflict="name", default_to_null=False).execute().data
    assert sorted((row["name"], row["amount"]) for row in data) == [("py-1", 8), ("py-4", 9)], data


@step("upsert of users in bulk")
def _():
    users = [{"id": f"py-user-{i}", "vip": i % 3} for i in range(500)]
    operator.from_("users").upsert(users).execute()
    operator.from_("users").upsert([{**user, "vip": 2} for user in users]).execute()
    reply = viewer.from_("users").select("id", count="exact", head=True).like("id", "py-user-%").eq("vip", 2).execute()
    assert reply.count == 500, reply


@step("rpc with POST and named arguments")
def _():
    data = operator.rpc("check_condition", {"expression": "is-vip(1) and"}).execute().data
    assert (data[0] if isinstance(data, list) else data)["valid"] is False, data


@step("rpc with GET")
def _():
    data = viewer.rpc("describe", {"schedule": "0 8 * * *"}, get=True).execute().data
    assert isinstance(data, str), data


@step("rpc that returns users is filtered, ordered and limited")
def _():
    reply = viewer.rpc("preview", {"condition": "is-vip(2)"}).select("id").like("id", "py-user-%").order("id").limit(2).execute()
    assert [row["id"] for row in reply.data] == ["py-user-0", "py-user-1"], reply.data


@step("embedding")
def _():
    operator.rpc("scan", {"strategy": "py-4"}).execute()
    data = (viewer.from_("executions").select("amount,strategy(name),user(vip)").eq("user_id", "py-user-1")
            .limit(1).single().execute().data)
    assert data == {"amount": 9, "strategy": {"name": "py-4"}, "user": {"vip": 2}}, data


@step("an error has code, message, details and hint")
def _():
    error = error_of(operator.from_("strategies").insert({**SINGLE, "name": "py-5", "condition": "is-vip("}))
    assert error.code == "22P02", error
    assert error.message and hasattr(error, "details") and hasattr(error, "hint"), error


@step("an error of a function")
def _():
    error = error_of(operator.rpc("scan", {"strategy": "py-none"}))
    assert error.code == "42704", error


@step("a viewer cannot write")
def _():
    error = error_of(viewer.from_("strategies").update({"amount": 1}).eq("name", "py-1"))
    assert error.code == "42501", error


@step("csv")
def _():
    data = viewer.from_("strategies").select("name,amount").like("name", "py-%").order("name").limit(2).csv().execute().data
    assert data == "name,amount\npy-1,8\npy-2,5", data


for what, code in STEPS:
    try:
        code()
        print(f"ok {what}")
    except Exception:
        print(f"not ok {what}")
        print("# " + traceback.format_exc().replace("\n", "\n# "))
