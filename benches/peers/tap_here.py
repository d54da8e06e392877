"""tap-kustomer as it is, but for the address: its client writes `https://api.kustomerapp.com/v1` into itself.

Usage: tap_here.py --config FILE --catalog FILE. The config's `base_url` takes the address's place; nothing else is changed.
"""

import json
import sys

import tap_kustomer
import tap_kustomer.client

begin = tap_kustomer.client.KustomerClient.__init__


def elsewhere(client, token, user_agent=None):
    begin(client, token, user_agent)
    with open(sys.argv[sys.argv.index("--config") + 1], encoding="utf-8") as file:
        client.base_url = json.load(file)["base_url"] + "/v1"


tap_kustomer.client.KustomerClient.__init__ = elsewhere
tap_kustomer.main()
