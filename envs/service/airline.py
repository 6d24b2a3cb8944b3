"""The airline domain of tau2-bench: flights, reservations and users (arXiv:2506.07982)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from datetime import date as Date
from datetime import timedelta
from typing import Literal, TypeAlias

from typing_extensions import TypedDict

from agentrl.core.errors import ToolError
from agentrl.core.tool import ToolFunction

from .database import Record
from .domain import Domain

Cabin: TypeAlias = Literal["basic_economy", "economy", "business"]

_NOW = "2024-05-15T15:00:00"
_RESERVATION_IDS = ("HATHAT", "HATHAU", "HATHAV")
_CERTIFICATE_IDS = ("certificate_3221322", "certificate_3221323", "certificate_3221324")
_BAGGAGE_FEE, _INSURANCE_FEE = 50, 30
_AIRPORTS: Mapping[str, str] = {
    "SFO": "San Francisco",
    "JFK": "New York",
    "LAX": "Los Angeles",
    "ORD": "Chicago",
    "DFW": "Dallas",
    "DEN": "Denver",
    "SEA": "Seattle",
    "ATL": "Atlanta",
    "MIA": "Miami",
    "BOS": "Boston",
    "PHX": "Phoenix",
    "IAH": "Houston",
    "LAS": "Las Vegas",
    "MCO": "Orlando",
    "EWR": "Newark",
    "CLT": "Charlotte",
    "MSP": "Minneapolis",
    "DTW": "Detroit",
    "PHL": "Philadelphia",
    "LGA": "LaGuardia",
}


class FlightPiece(TypedDict):
    """A flight on a day (YYYY-MM-DD)."""

    flight_number: str
    date: str


class Passenger(TypedDict):
    """Who flies; `dob` is the date of birth, YYYY-MM-DD."""

    first_name: str
    last_name: str
    dob: str


class Payment(TypedDict):
    """How much is paid by which of the user's methods, in dollars."""

    payment_id: str
    amount: float


class Airline(Domain):
    """What an agent of the airline can look up and change; the rules beyond are its policy's."""

    tables = ("flights", "reservations", "users")

    @property
    def functions(self) -> Sequence[ToolFunction]:
        """Fourteen tools."""
        return (
            self.get_user_details,
            self.get_reservation_details,
            self.get_flight_status,
            self.list_all_airports,
            self.search_direct_flight,
            self.search_onestop_flight,
            self.calculate,
            self.book_reservation,
            self.cancel_reservation,
            self.update_reservation_flights,
            self.update_reservation_passengers,
            self.update_reservation_baggages,
            self.send_certificate,
            self.transfer_to_human_agents,
        )

    def get_user_details(self, user_id: str) -> Record:
        """Look up a user: membership, payment methods, saved passengers, reservations.

        Args:
            user_id: Such as 'sara_doe_496'.
        """
        return self.found("users", user_id, "user")

    def get_reservation_details(self, reservation_id: str) -> Record:
        """Look up a reservation.

        Args:
            reservation_id: Such as '8JX2WO'.
        """
        return self.found("reservations", reservation_id, "reservation")

    def get_flight_status(self, flight_number: str, date: str) -> str:
        """Look up how a flight stands on a day.

        Args:
            flight_number: Such as 'HAT001'.
            date: YYYY-MM-DD.
        """
        return str(self._on(flight_number, date)["status"])

    def list_all_airports(self) -> list[Record]:
        """List all airports with their cities."""
        return [{"iata": iata, "city": city} for iata, city in _AIRPORTS.items()]

    def search_direct_flight(self, origin: str, destination: str, date: str) -> list[Record]:
        """Find direct flights with free seats between two airports on a day.

        Args:
            origin: Airport in three letters, such as 'JFK'.
            destination: Airport in three letters, such as 'LAX'.
            date: YYYY-MM-DD.
        """
        return self._direct(date, origin=origin, destination=destination)

    def search_onestop_flight(self, origin: str, destination: str, date: str) -> list[list[Record]]:
        """Find pairs of flights with one stop between two airports on a day.

        Args:
            origin: Airport in three letters, such as 'JFK'.
            destination: Airport in three letters, such as 'LAX'.
            date: YYYY-MM-DD, of the first flight.
        """
        pairs = []
        for first in self._direct(date, origin=origin):
            arrival = first["scheduled_arrival_time_est"]
            later = _next_day(date) if "+1" in arrival else date
            for second in self._direct(
                later,
                origin=first["destination"],
                destination=destination,
                leave_after=arrival.removesuffix("+1"),
            ):
                pairs.append([{**first, "date": date}, {**second, "date": later}])
        return pairs

    def book_reservation(
        self,
        user_id: str,
        origin: str,
        destination: str,
        flight_type: Literal["one_way", "round_trip"],
        cabin: Cabin,
        flights: list[FlightPiece],
        passengers: list[Passenger],
        payment_methods: list[Payment],
        total_baggages: int,
        nonfree_baggages: int,
        insurance: Literal["yes", "no"],
    ) -> Record:
        """Book a reservation, once the user has confirmed it.

        Args:
            user_id: Such as 'sara_doe_496'.
            origin: Airport in three letters.
            destination: Airport in three letters.
            flight_type: One way or there and back.
            cabin: The same for all flights.
            flights: Every piece of the journey.
            passengers: Everybody who flies.
            payment_methods: What pays how much; together the whole price.
            total_baggages: All bags.
            nonfree_baggages: The bags that cost extra.
            insurance: Whether to insure.
        """
        user = self.found("users", user_id, "user")
        booked = [self._seats(piece, cabin, len(passengers)) for piece in flights]
        price = sum(flight["price"] for flight in booked) * len(passengers)
        price += _INSURANCE_FEE * len(passengers) if insurance == "yes" else 0
        price += _BAGGAGE_FEE * nonfree_baggages
        for paid in payment_methods:
            method = user["payment_methods"].get(paid["payment_id"])
            if method is None:
                raise ToolError(f"Payment method {paid['payment_id']} not found")
            if method["source"] != "credit_card" and method["amount"] < paid["amount"]:
                raise ToolError(f"Not enough balance in payment method {paid['payment_id']}")
        total = sum(paid["amount"] for paid in payment_methods)
        if total != price:
            raise ToolError(
                f"Payment amount does not add up, total price is {price}, but paid {total}"
            )
        free = [id_ for id_ in _RESERVATION_IDS if self.db.get("reservations", id_) is None]
        if not free:
            raise ToolError("Too many reservations")
        self._pay(user_id, payment_methods)
        for piece in flights:
            day = self.db.edit("flights", piece["flight_number"])["dates"][piece["date"]]
            day["available_seats"][cabin] -= len(passengers)
        reservation: Record = {
            "reservation_id": free[0],
            "user_id": user_id,
            "origin": origin,
            "destination": destination,
            "flight_type": flight_type,
            "cabin": cabin,
            "flights": booked,
            "passengers": copy.deepcopy(passengers),
            "payment_history": copy.deepcopy(payment_methods),
            "created_at": _NOW,
            "total_baggages": total_baggages,
            "nonfree_baggages": nonfree_baggages,
            "insurance": insurance,
        }
        self.db.put("reservations", free[0], reservation)
        self.db.edit("users", user_id)["reservations"].append(free[0])
        return reservation

    def cancel_reservation(self, reservation_id: str) -> Record:
        """Cancel a whole reservation and refund it, once the user has confirmed that.

        Args:
            reservation_id: Such as 'ZFA04Y'.
        """
        self.found("reservations", reservation_id, "reservation")
        reservation = self.db.edit("reservations", reservation_id)
        reservation["payment_history"] += [
            {"payment_id": paid["payment_id"], "amount": -paid["amount"]}
            for paid in reservation["payment_history"]
        ]
        reservation["status"] = "cancelled"
        return reservation

    def update_reservation_flights(
        self, reservation_id: str, cabin: Cabin, flights: list[FlightPiece], payment_id: str
    ) -> Record:
        """Change flights or cabin of a reservation, once the user has confirmed that.

        Args:
            reservation_id: Such as 'ZFA04Y'.
            cabin: The cabin from now on.
            flights: Every piece of the new journey, those that stay included.
            payment_id: Pays or receives the difference.
        """
        reservation = self.found("reservations", reservation_id, "reservation")
        people = len(reservation["passengers"])
        kept = {
            (flight["flight_number"], flight["date"]): flight
            for flight in reservation["flights"]
            if cabin == reservation["cabin"]
        }
        new = [
            kept.get((piece["flight_number"], piece["date"])) or self._seats(piece, cabin, people)
            for piece in flights
        ]
        before = sum(flight["price"] for flight in reservation["flights"])
        price = (sum(flight["price"] for flight in new) - before) * people
        self._pay_update(reservation_id, payment_id, price)
        reservation = self.db.edit("reservations", reservation_id)
        reservation["flights"] = copy.deepcopy(new)
        reservation["cabin"] = cabin
        return reservation

    def update_reservation_passengers(
        self, reservation_id: str, passengers: list[Passenger]
    ) -> Record:
        """Change who flies; the number of passengers stays.

        Args:
            reservation_id: Such as 'ZFA04Y'.
            passengers: Everybody who flies.
        """
        reservation = self.found("reservations", reservation_id, "reservation")
        if len(passengers) != len(reservation["passengers"]):
            raise ToolError("Number of passengers does not match")
        reservation = self.db.edit("reservations", reservation_id)
        reservation["passengers"] = copy.deepcopy(passengers)
        return reservation

    def update_reservation_baggages(
        self, reservation_id: str, total_baggages: int, nonfree_baggages: int, payment_id: str
    ) -> Record:
        """Change the bags of a reservation, once the user has confirmed that.

        Args:
            reservation_id: Such as 'ZFA04Y'.
            total_baggages: All bags from now on.
            nonfree_baggages: The bags that cost extra from now on.
            payment_id: Pays for them.
        """
        reservation = self.found("reservations", reservation_id, "reservation")
        more = max(0, nonfree_baggages - reservation["nonfree_baggages"])
        self._pay_update(reservation_id, payment_id, _BAGGAGE_FEE * more)
        reservation = self.db.edit("reservations", reservation_id)
        reservation["total_baggages"] = total_baggages
        reservation["nonfree_baggages"] = nonfree_baggages
        return reservation

    def send_certificate(self, user_id: str, amount: int) -> str:
        """Send a user a certificate, which is as good as money.

        Args:
            user_id: Such as 'sara_doe_496'.
            amount: In dollars.
        """
        self.found("users", user_id, "user")
        methods = self.db.edit("users", user_id)["payment_methods"]
        free = [id_ for id_ in _CERTIFICATE_IDS if id_ not in methods]
        if not free:
            raise ToolError("Too many certificates")
        methods[free[0]] = {"source": "certificate", "id": free[0], "amount": amount}
        return f"Certificate {free[0]} added to user {user_id} with amount {amount}."

    def _on(self, flight_number: str, date: str) -> Record:
        flight = self.found("flights", flight_number, "flight")
        if date not in flight["dates"]:
            raise ToolError(f"Flight {flight_number} not found on date {date}")
        found: Record = flight["dates"][date]
        return found

    def _seats(self, piece: FlightPiece, cabin: Cabin, people: int) -> Record:
        """A flight as a reservation notes it, where there are seats for all."""
        number, date = piece["flight_number"], piece["date"]
        day = self._on(number, date)
        if day["status"] != "available":
            raise ToolError(f"Flight {number} not available on date {date}")
        if day["available_seats"][cabin] < people:
            raise ToolError(f"Not enough seats on flight {number}")
        flight = self.found("flights", number, "flight")
        return {
            "origin": flight["origin"],
            "destination": flight["destination"],
            "flight_number": number,
            "date": date,
            "price": day["prices"][cabin],
        }

    def _direct(
        self,
        date: str,
        *,
        origin: str,
        destination: str | None = None,
        leave_after: str = "",
    ) -> list[Record]:
        found = []
        for flight in self.db.rows("flights"):
            day = flight["dates"].get(date)
            if (
                flight["origin"] == origin
                and destination in (None, flight["destination"])
                and day is not None
                and day["status"] == "available"
                and flight["scheduled_departure_time_est"] >= leave_after
            ):
                kept = {key: value for key, value in flight.items() if key != "dates"}
                found.append({**kept, **day})
        return found

    def _pay(self, user_id: str, payments: Sequence[Payment]) -> None:
        methods = self.db.edit("users", user_id)["payment_methods"]
        for paid in payments:
            method = methods[paid["payment_id"]]
            if method["source"] == "gift_card":
                method["amount"] -= paid["amount"]
            elif method["source"] == "certificate":
                del methods[paid["payment_id"]]

    def _pay_update(self, reservation_id: str, payment_id: str, price: int) -> None:
        """Pay for a change, or receive what it costs less."""
        user_id = self.found("reservations", reservation_id, "reservation")["user_id"]
        method = self.found("users", user_id, "user")["payment_methods"].get(payment_id)
        if method is None:
            raise ToolError("Payment method not found")
        if method["source"] == "certificate":
            raise ToolError("Certificate cannot be used to update reservation")
        if method["source"] == "gift_card" and method["amount"] < price:
            raise ToolError("Gift card balance is not enough")
        if price == 0:
            return
        if method["source"] == "gift_card":
            self.db.edit("users", user_id)["payment_methods"][payment_id]["amount"] -= price
        reservation = self.db.edit("reservations", reservation_id)
        reservation["payment_history"].append({"payment_id": payment_id, "amount": price})


def _next_day(date: str) -> str:
    try:
        return (Date.fromisoformat(date) + timedelta(days=1)).isoformat()
    except ValueError as error:
        raise ToolError(f"{date!r} is no date: write YYYY-MM-DD") from error
