"""The tools of customer service on values worked out by hand."""

from __future__ import annotations

import copy

import pytest

from agentrl.core.errors import ToolError
from agentrl.envs.service.airline import Airline
from agentrl.envs.service.database import Database
from agentrl.envs.service.desk import Desk, tables
from agentrl.envs.service.retail import Retail


def item(id_, price):
    return {"item_id": id_, "options": {"size": id_}, "available": id_ != "3", "price": price}


PRICES = (10.0, 12.5, 9.0)
SHOP = {
    "products": {
        "p1": {
            "name": "Shoe",
            "product_id": "p1",
            "variants": {id_: item(id_, price) for id_, price in zip("123", PRICES, strict=True)},
        },
        "p2": {"name": "Hat", "product_id": "p2", "variants": {"7": item("7", 5.0)}},
    },
    "users": {
        "u": {
            "user_id": "u",
            "name": {"first_name": "Ada", "last_name": "Marrow"},
            "address": {"zip": "123"},
            "email": "Ada@x.org",
            "payment_methods": {
                "card": {"source": "credit_card", "id": "card"},
                "gift": {"source": "gift_card", "id": "gift", "balance": 11.0},
                "poor": {"source": "gift_card", "id": "poor", "balance": 1.0},
            },
            "orders": ["#a", "#b"],
        }
    },
    "orders": {
        "#a": {
            "order_id": "#a",
            "user_id": "u",
            "address": {},
            "items": [
                {"name": "Shoe", "product_id": "p1", "item_id": "1", "price": 10.0, "options": {}},
                {"name": "Hat", "product_id": "p2", "item_id": "7", "price": 5.0, "options": {}},
            ],
            "status": "pending",
            "payment_history": [
                {"transaction_type": "payment", "amount": 15.0, "payment_method_id": "gift"}
            ],
        }
    },
}
SHOP["orders"]["#b"] = {**copy.deepcopy(SHOP["orders"]["#a"]), "order_id": "#b"}
SHOP["orders"]["#b"]["status"] = "delivered"
SHOP["orders"]["#b"]["payment_history"][0]["payment_method_id"] = "card"


@pytest.fixture
def shop():
    before = copy.deepcopy(SHOP)
    yield Retail.over(SHOP)
    assert before == SHOP, "the base is never changed"


def balance(shop, method):
    return shop.get_user_details("u")["payment_methods"][method]["balance"]


def test_users_and_products_are_found(shop):
    assert shop.find_user_id_by_email("ada@X.org") == "u"
    assert shop.find_user_id_by_name_zip("ADA", "marrow", "123") == "u"
    assert shop.list_all_product_types() == {"Hat": "p2", "Shoe": "p1"}
    assert shop.get_item_details("2")["price"] == 12.5
    for call in (
        lambda: shop.find_user_id_by_email("b@x.org"),
        lambda: shop.find_user_id_by_name_zip("Ada", "Marrow", "124"),
        lambda: shop.get_item_details("p1"),
        lambda: shop.get_order_details("a"),
        lambda: shop.get_product_details("1"),
    ):
        with pytest.raises(ToolError, match="not found"):
            call()


def test_a_cancelled_order_is_refunded_at_once_to_a_gift_card(shop):
    order = shop.cancel_pending_order("#a", "ordered by mistake")
    assert order["status"] == "cancelled" and order["cancel_reason"] == "ordered by mistake"
    assert balance(shop, "gift") == 26.0
    assert order["payment_history"][1] == {
        "transaction_type": "refund",
        "amount": 15.0,
        "payment_method_id": "gift",
    }
    for order_id in ("#a", "#b"):
        with pytest.raises(ToolError, match="Non-pending"):
            shop.cancel_pending_order(order_id, "no longer needed")


def test_items_of_a_pending_order_become_others_once_and_the_difference_is_paid(shop):
    order = shop.modify_pending_order_items("#a", ["1"], ["2"], "gift")
    assert [one["item_id"] for one in order["items"]] == ["2", "7"]
    assert (order["items"][0]["price"], order["items"][0]["options"]) == (12.5, {"size": "2"})
    assert balance(shop, "gift") == 8.5 and order["status"] == "pending (item modified)"
    assert order["payment_history"][-1]["amount"] == 2.5
    with pytest.raises(ToolError, match="Non-pending"):
        shop.modify_pending_order_items("#a", ["2"], ["1"], "gift")
    assert shop.modify_pending_order_address("#a", "1 Road", "C", "S", "X", "9")["address"] == {
        "address1": "1 Road",
        "address2": "",
        "city": "C",
        "country": "X",
        "state": "S",
        "zip": "9",
    }


@pytest.mark.parametrize(
    ("items", "new", "method", "said"),
    [
        (["1"], ["1"], "gift", "should be different"),
        (["1"], ["3"], "gift", "not found or available"),
        (["1"], ["7"], "gift", "not found or available"),
        (["1", "1"], ["2", "2"], "gift", "Number of 1 not found"),
        (["1"], ["2", "2"], "gift", "should match"),
        (["1"], ["2"], "poor", "Insufficient"),
        (["1"], ["2"], "none", "Payment method not found"),
    ],
)
def test_a_refused_change_changes_nothing(shop, items, new, method, said):
    with pytest.raises(ToolError, match=said):
        shop.modify_pending_order_items("#a", items, new, method)
    assert shop.db.same_as(Database(SHOP))


def test_a_delivered_order_is_returned_or_exchanged(shop):
    exchanged = shop.fork()
    order = shop.return_delivered_order_items("#b", ["7", "1"], "gift")
    assert order["status"] == "return requested" and order["return_items"] == ["1", "7"]
    assert shop.db.same_as(exchanged.db) is False
    with pytest.raises(ToolError, match="original payment method"):
        Retail.over(
            {**SHOP, "orders": {"#b": {**SHOP["orders"]["#b"], "payment_history": [
                {"transaction_type": "payment", "amount": 1, "payment_method_id": "gift"}
            ]}}}
        ).return_delivered_order_items("#b", ["7"], "card")  # fmt: skip
    order = exchanged.exchange_delivered_order_items("#b", ["1"], ["2"], "card")
    assert order["exchange_price_difference"] == 2.5
    assert order["exchange_new_items"] == ["2"] and order["status"] == "exchange requested"
    assert shop.get_order_details("#b")["status"] == "return requested"


def test_another_payment_method_pays_and_the_first_is_refunded(shop):
    with pytest.raises(ToolError, match="different from the current"):
        shop.modify_pending_order_payment("#a", "gift")
    with pytest.raises(ToolError, match="Insufficient"):
        shop.modify_pending_order_payment("#a", "poor")
    order = shop.modify_pending_order_payment("#a", "card")
    assert balance(shop, "gift") == 26.0
    assert [one["payment_method_id"] for one in order["payment_history"]] == [
        "gift",
        "card",
        "gift",
    ]
    with pytest.raises(ToolError, match="exactly one payment"):
        shop.modify_pending_order_payment("#a", "poor")


def day(price, seats=2):
    cabins = ("basic_economy", "economy", "business")
    return {
        "status": "available",
        "available_seats": dict.fromkeys(cabins, seats),
        "prices": {cabin: price * (n + 1) for n, cabin in enumerate(cabins)},
    }


def flight(number, origin, destination, leaves, arrives, dates):
    return {
        "flight_number": number,
        "origin": origin,
        "destination": destination,
        "scheduled_departure_time_est": leaves,
        "scheduled_arrival_time_est": arrives,
        "dates": dates,
    }


LANDED = {"status": "landed"}
AIR = {
    "flights": {
        "F1": flight("F1", "SFO", "ORD", "06:00:00", "23:30:00", {"2024-05-30": day(100)}),
        "F2": flight("F2", "ORD", "JFK", "23:45:00", "02:00:00+1", {"2024-05-30": day(50)}),
        "F3": flight("F3", "SFO", "DEN", "20:00:00", "01:00:00+1", {"2024-05-31": day(70)}),
        "F4": flight("F4", "DEN", "JFK", "03:00:00", "08:00:00", {"2024-06-01": day(30, seats=1)}),
        "F5": flight("F5", "SFO", "JFK", "08:00:00", "16:00:00", {"2024-05-30": LANDED}),
    },
    "reservations": {},
    "users": {
        "u": {
            "payment_methods": {
                "credit_card_1": {"source": "credit_card", "id": "credit_card_1"},
                "gift_card_1": {"source": "gift_card", "id": "gift_card_1", "amount": 100},
                "certificate_1": {"source": "certificate", "id": "certificate_1", "amount": 500},
            },
            "reservations": [],
        }
    },
}  # fmt: skip
TWO = [{"first_name": name, "last_name": "M", "dob": "2000-01-01"} for name in ("Ada", "Ben")]


def book(air, payments, *, flights=("F1", "F2"), cabin="economy"):
    return air.book_reservation(
        "u",
        "SFO",
        "JFK",
        "one_way",
        cabin,
        [{"flight_number": number, "date": "2024-05-30"} for number in flights],
        TWO,
        [{"payment_id": id_, "amount": amount} for id_, amount in payments],
        3,
        1,
        "yes",
    )


def test_a_reservation_costs_seats_insurance_and_bags_and_takes_them():
    air = Airline.over(AIR)
    # Two people: (200 + 100) * 2, insurance 30 * 2, one bag 50.
    with pytest.raises(ToolError, match="total price is 710, but paid 700"):
        book(air, [("credit_card_1", 700)])
    made = book(air, [("certificate_1", 500), ("gift_card_1", 100), ("credit_card_1", 110)])
    assert made["reservation_id"] == "HATHAT" and [one["price"] for one in made["flights"]] == [
        200,
        100,
    ]
    user = air.get_user_details("u")
    assert "certificate_1" not in user["payment_methods"] and user["reservations"] == ["HATHAT"]
    assert user["payment_methods"]["gift_card_1"]["amount"] == 0
    with pytest.raises(ToolError, match="Not enough seats"):
        book(air, [("credit_card_1", 710)])
    assert AIR["flights"]["F1"]["dates"]["2024-05-30"]["available_seats"]["economy"] == 2
    for payments, said in (([("x", 710)], "not found"), ([("gift_card_1", 710)], "balance")):
        with pytest.raises(ToolError, match=said):
            book(Airline.over(AIR), payments)
    with pytest.raises(ToolError, match="not available on date"):
        book(Airline.over(AIR), [], flights=("F5",))


def test_a_reservation_is_changed_and_cancelled():
    air = Airline.over(AIR)
    book(air, [("credit_card_1", 710)])
    pieces = [{"flight_number": "F1", "date": "2024-05-30"}]
    changed = air.update_reservation_flights("HATHAT", "economy", pieces, "gift_card_1")
    # The second flight, 100 for each of two, comes back.
    assert changed["payment_history"][-1] == {"payment_id": "gift_card_1", "amount": -200}
    assert air.get_user_details("u")["payment_methods"]["gift_card_1"]["amount"] == 300
    with pytest.raises(ToolError, match="Certificate cannot"):
        air.update_reservation_baggages("HATHAT", 4, 2, "certificate_1")
    bags = air.update_reservation_baggages("HATHAT", 4, 3, "gift_card_1")
    assert bags["payment_history"][-1]["amount"] == 100 and bags["nonfree_baggages"] == 3
    fewer = air.update_reservation_baggages("HATHAT", 0, 0, "credit_card_1")
    assert len(fewer["payment_history"]) == 3, "nothing is refunded for fewer bags"
    with pytest.raises(ToolError, match="Number of passengers"):
        air.update_reservation_passengers("HATHAT", TWO[:1])
    cancelled = air.cancel_reservation("HATHAT")
    assert cancelled["status"] == "cancelled"
    assert sum(one["amount"] for one in cancelled["payment_history"]) == 0
    assert "certificate_3221322 added" in air.send_certificate("u", 50)


def test_flights_are_searched_over_midnight_and_the_end_of_a_month():
    air = Airline.over(AIR)
    assert [
        one["flight_number"] for one in air.search_direct_flight("SFO", "ORD", "2024-05-30")
    ] == ["F1"]
    assert air.search_direct_flight("SFO", "JFK", "2024-05-30") == []
    assert "dates" not in air.search_direct_flight("SFO", "ORD", "2024-05-30")[0]
    ((first, second),) = air.search_onestop_flight("SFO", "JFK", "2024-05-31")
    assert (first["date"], second["date"]) == ("2024-05-31", "2024-06-01")
    assert [
        [one["flight_number"] for one in pair]
        for pair in air.search_onestop_flight("SFO", "JFK", "2024-05-30")
    ] == [["F1", "F2"]]
    assert air.get_flight_status("F5", "2024-05-30") == "landed"
    with pytest.raises(ToolError, match="not found on date"):
        air.get_flight_status("F5", "2024-05-31")


@pytest.mark.parametrize(
    ("expression", "value"),
    [("2 + 3 * 4", "14.0"), ("(1.005 - 1) / -2", "-0.0"), ("10/4", "2.5"), ("-(2)", "-2.0")],
)
def test_arithmetic_is_calculated(expression, value):
    assert Desk.over(tables()).calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    ["2 ** 9", "__import__('os')", "a", "1 +", "'x' * 9", "9" * 300, "True + 1", "[1]", "f(1)"],
)
def test_what_is_no_arithmetic_is_refused(expression):
    with pytest.raises(ToolError):
        Desk.over(tables()).calculate(expression)


def test_forks_share_the_base_and_nothing_else():
    desk = Desk.over(tables())
    desk.create_task("user_1", "x")
    twin = desk.fork()
    assert twin.db.same_as(desk.db)
    assert twin.create_task("user_1", "y")["task_id"] == "task_10"
    assert desk.create_task("user_2", "z")["task_id"] == "task_10"
    assert not twin.db.same_as(desk.db)
    assert desk.found("users", "user_1", "user")["tasks"] == ["task_1", "task_9"]
    assert [one["task_id"] for one in twin.db.rows("tasks")][-2:] == ["task_9", "task_10"]
