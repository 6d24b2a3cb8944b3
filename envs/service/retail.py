"""The retail domain of tau2-bench: orders, products and users of a shop (arXiv:2506.07982)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

from agentrl.core.errors import ToolError
from agentrl.core.tool import ToolFunction

from .database import Record
from .domain import Domain


class Retail(Domain):
    """What an agent of the shop can look up and change; the rules beyond that are its policy's."""

    tables = ("products", "users", "orders")

    @property
    def functions(self) -> Sequence[ToolFunction]:
        """Sixteen tools."""
        return (
            self.find_user_id_by_email,
            self.find_user_id_by_name_zip,
            self.get_user_details,
            self.get_order_details,
            self.get_product_details,
            self.get_item_details,
            self.list_all_product_types,
            self.calculate,
            self.cancel_pending_order,
            self.modify_pending_order_address,
            self.modify_pending_order_items,
            self.modify_pending_order_payment,
            self.modify_user_address,
            self.return_delivered_order_items,
            self.exchange_delivered_order_items,
            self.transfer_to_human_agents,
        )

    def find_user_id_by_email(self, email: str) -> str:
        """Find a user's id by e-mail address; try this first.

        Args:
            email: Such as 'something@example.com'.
        """
        for user in self.db.rows("users"):
            if user["email"].lower() == email.lower():
                return str(user["user_id"])
        raise ToolError("User not found")

    def find_user_id_by_name_zip(self, first_name: str, last_name: str, zip: str) -> str:
        """Find a user's id by name and zip code, where the e-mail address is not known.

        Args:
            first_name: Such as 'John'.
            last_name: Such as 'Doe'.
            zip: Such as '12345'.
        """
        wanted = (first_name.lower(), last_name.lower(), zip)
        for user in self.db.rows("users"):
            name = user["name"]
            here = (name["first_name"].lower(), name["last_name"].lower(), user["address"]["zip"])
            if here == wanted:
                return str(user["user_id"])
        raise ToolError("User not found")

    def get_user_details(self, user_id: str) -> Record:
        """Look up a user: address, payment methods and order ids.

        Args:
            user_id: Such as 'sara_doe_496'.
        """
        return self.found("users", user_id, "user")

    def get_order_details(self, order_id: str) -> Record:
        """Look up an order: its items, status, address and payments.

        Args:
            order_id: Such as '#W0000000', with the '#'.
        """
        return self.found("orders", order_id, "order")

    def get_product_details(self, product_id: str) -> Record:
        """Look up a type of product and its variants.

        Args:
            product_id: Such as '6086499569'; not the id of an item.
        """
        return self.found("products", product_id, "product")

    def get_item_details(self, item_id: str) -> Record:
        """Look up one variant of a product.

        Args:
            item_id: Such as '1008292230'; not the id of a product.
        """
        for product in self.db.rows("products"):
            if item_id in product["variants"]:
                found: Record = product["variants"][item_id]
                return found
        raise ToolError("Item not found")

    def list_all_product_types(self) -> Record:
        """List the names of all types of products with their product ids."""
        ids = {product["name"]: product["product_id"] for product in self.db.rows("products")}
        return dict(sorted(ids.items()))

    def cancel_pending_order(
        self, order_id: str, reason: Literal["no longer needed", "ordered by mistake"]
    ) -> Record:
        """Cancel a pending order and refund it, once the user has confirmed that.

        Args:
            order_id: Such as '#W0000000', with the '#'.
            reason: Why; no other reason is accepted.
        """
        order = self.found("orders", order_id, "order")
        if order["status"] != "pending":
            raise ToolError("Non-pending order cannot be cancelled")
        order = self.db.edit("orders", order_id)
        refunds = [
            _payment("refund", paid["amount"], paid["payment_method_id"])
            for paid in order["payment_history"]
        ]
        for refund in refunds:
            self._credit(order["user_id"], refund["payment_method_id"], refund["amount"])
        order["status"] = "cancelled"
        order["cancel_reason"] = reason
        order["payment_history"] += refunds
        return order

    def modify_pending_order_address(
        self,
        order_id: str,
        address1: str,
        city: str,
        state: str,
        country: str,
        zip: str,
        address2: str = "",
    ) -> Record:
        """Change where a pending order is sent, once the user has confirmed that.

        Args:
            order_id: Such as '#W0000000', with the '#'.
            address1: First line, such as '123 Main St'.
            city: Such as 'San Francisco'.
            state: Such as 'CA'.
            country: Such as 'USA'.
            zip: Such as '12345'.
            address2: Second line, such as 'Apt 1', or nothing.
        """
        self._pending(order_id)
        order = self.db.edit("orders", order_id)
        order["address"] = _address(address1, address2, city, state, country, zip)
        return order

    def modify_user_address(
        self,
        user_id: str,
        address1: str,
        city: str,
        state: str,
        country: str,
        zip: str,
        address2: str = "",
    ) -> Record:
        """Change a user's own address, once the user has confirmed that.

        Args:
            user_id: Such as 'sara_doe_496'.
            address1: First line, such as '123 Main St'.
            city: Such as 'San Francisco'.
            state: Such as 'CA'.
            country: Such as 'USA'.
            zip: Such as '12345'.
            address2: Second line, such as 'Apt 1', or nothing.
        """
        self.found("users", user_id, "user")
        user = self.db.edit("users", user_id)
        user["address"] = _address(address1, address2, city, state, country, zip)
        return user

    def modify_pending_order_payment(self, order_id: str, payment_method_id: str) -> Record:
        """Pay a pending order by another method, once the user has confirmed that.

        Args:
            order_id: Such as '#W0000000', with the '#'.
            payment_method_id: Such as 'gift_card_0000000', one of the user's.
        """
        order = self._pending(order_id)
        method = self._method(order["user_id"], payment_method_id)
        history = order["payment_history"]
        if len(history) != 1 or history[0]["transaction_type"] != "payment":
            raise ToolError("There should be exactly one payment for a pending order")
        before, amount = history[0]["payment_method_id"], history[0]["amount"]
        if before == payment_method_id:
            raise ToolError("The new payment method should be different from the current one")
        if method["source"] == "gift_card" and method["balance"] < amount:
            raise ToolError("Insufficient gift card balance to pay for the order")
        order = self.db.edit("orders", order_id)
        order["payment_history"] += [
            _payment("payment", amount, payment_method_id),
            _payment("refund", amount, before),
        ]
        self._credit(order["user_id"], payment_method_id, -amount)
        self._credit(order["user_id"], before, amount)
        return order

    def modify_pending_order_items(
        self, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
    ) -> Record:
        """Change items of a pending order to others of the same product; only once for an order.

        Args:
            order_id: Such as '#W0000000', with the '#'.
            item_ids: The items to change, such as '1008292230'; the same one may stand twice.
            new_item_ids: What each becomes, in the same order.
            payment_method_id: Pays or receives the difference of the prices.
        """
        order = self.found("orders", order_id, "order")
        if order["status"] != "pending":
            raise ToolError("Non-pending order cannot be modified")
        variants = self._replacements(order, item_ids, new_item_ids, same_allowed=False)
        difference = _difference(order, item_ids, variants)
        method = self._method(order["user_id"], payment_method_id)
        if method["source"] == "gift_card" and method["balance"] < difference:
            raise ToolError("Insufficient gift card balance to pay for the new item")
        order = self.db.edit("orders", order_id)
        kind = "payment" if difference > 0 else "refund"
        order["payment_history"].append(_payment(kind, abs(difference), payment_method_id))
        self._credit(order["user_id"], payment_method_id, -difference)
        for item_id, variant in zip(item_ids, variants, strict=True):
            item = next(one for one in order["items"] if one["item_id"] == item_id)
            item["item_id"] = variant["item_id"]
            item["price"] = variant["price"]
            item["options"] = copy.deepcopy(variant["options"])
        order["status"] = "pending (item modified)"
        return order

    def return_delivered_order_items(
        self, order_id: str, item_ids: list[str], payment_method_id: str
    ) -> Record:
        """Take back items of a delivered order, once the user has confirmed that.

        Args:
            order_id: Such as '#W0000000', with the '#'.
            item_ids: The items to return, such as '1008292230'; the same one may stand twice.
            payment_method_id: Receives the refund: the order's own, or a gift card.
        """
        order = self.found("orders", order_id, "order")
        if order["status"] != "delivered":
            raise ToolError("Non-delivered order cannot be returned")
        method = self._method(order["user_id"], payment_method_id)
        original = order["payment_history"][0]["payment_method_id"]
        if method["source"] != "gift_card" and payment_method_id != original:
            raise ToolError("Payment method should be the original payment method")
        _check_items(order, item_ids)
        order = self.db.edit("orders", order_id)
        order["status"] = "return requested"
        order["return_items"] = sorted(item_ids)
        order["return_payment_method_id"] = payment_method_id
        return order

    def exchange_delivered_order_items(
        self, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
    ) -> Record:
        """Exchange items of a delivered order for others of the same product; only once.

        Args:
            order_id: Such as '#W0000000', with the '#'.
            item_ids: The items to exchange, such as '1008292230'; the same one may stand twice.
            new_item_ids: What each is exchanged for, in the same order.
            payment_method_id: Pays or receives the difference of the prices.
        """
        order = self.found("orders", order_id, "order")
        if order["status"] != "delivered":
            raise ToolError("Non-delivered order cannot be exchanged")
        variants = self._replacements(order, item_ids, new_item_ids, same_allowed=True)
        difference = _difference(order, item_ids, variants)
        method = self._method(order["user_id"], payment_method_id)
        if method["source"] == "gift_card" and method["balance"] < difference:
            raise ToolError("Insufficient gift card balance to pay for the price difference")
        order = self.db.edit("orders", order_id)
        order["status"] = "exchange requested"
        order["exchange_items"] = sorted(item_ids)
        order["exchange_new_items"] = sorted(new_item_ids)
        order["exchange_payment_method_id"] = payment_method_id
        order["exchange_price_difference"] = difference
        return order

    def _pending(self, order_id: str) -> Record:
        order = self.found("orders", order_id, "order")
        if "pending" not in order["status"]:
            raise ToolError("Non-pending order cannot be modified")
        return order

    def _method(self, user_id: str, payment_method_id: str) -> Record:
        methods = self.found("users", user_id, "user")["payment_methods"]
        if payment_method_id not in methods:
            raise ToolError("Payment method not found")
        found: Record = methods[payment_method_id]
        return found

    def _credit(self, user_id: str, payment_method_id: str, amount: float) -> None:
        """Change a gift card's balance; other methods keep none here."""
        if self._method(user_id, payment_method_id)["source"] != "gift_card":
            return
        card = self.db.edit("users", user_id)["payment_methods"][payment_method_id]
        card["balance"] = round(card["balance"] + amount, 2)

    def _replacements(
        self,
        order: Record,
        item_ids: Sequence[str],
        new_item_ids: Sequence[str],
        *,
        same_allowed: bool,
    ) -> list[Record]:
        """The variant that each item becomes, all of them checked."""
        _check_items(order, item_ids)
        if len(item_ids) != len(new_item_ids):
            raise ToolError("The number of items to be exchanged should match")
        variants = []
        for item_id, new_item_id in zip(item_ids, new_item_ids, strict=True):
            if item_id == new_item_id and not same_allowed:
                raise ToolError("The new item id should be different from the old item id")
            item = next(one for one in order["items"] if one["item_id"] == item_id)
            product = self.found("products", item["product_id"], "product")
            variant = product["variants"].get(new_item_id)
            if variant is None or not variant["available"]:
                raise ToolError(f"New item {new_item_id} not found or available")
            variants.append(variant)
        return variants


def _check_items(order: Record, item_ids: Sequence[str]) -> None:
    there = [item["item_id"] for item in order["items"]]
    for item_id in item_ids:
        if list(item_ids).count(item_id) > there.count(item_id):
            raise ToolError(f"Number of {item_id} not found")


def _difference(order: Record, item_ids: Sequence[str], variants: Sequence[Record]) -> float:
    """What the new items cost more."""
    prices = {item["item_id"]: item["price"] for item in order["items"]}
    pairs = zip(item_ids, variants, strict=True)
    more = sum(float(variant["price"] - prices[item_id]) for item_id, variant in pairs)
    return round(more, 2)


def _payment(kind: str, amount: float, payment_method_id: str) -> Record:
    return {
        "transaction_type": kind,
        "amount": amount,
        "payment_method_id": payment_method_id,
    }


def _address(address1: str, address2: str, city: str, state: str, country: str, zip: str) -> Record:
    return {
        "address1": address1,
        "address2": address2,
        "city": city,
        "country": country,
        "state": state,
        "zip": zip,
    }
