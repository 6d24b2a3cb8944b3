"""A web shop in text, with WebShop's actions and reward."""

from .env import WebShopEnv

__all__ = ["WebShopEnv"]
