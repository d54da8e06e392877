"""Opens data files of a lake with PyArrow's own key tools and prints what it read.

Standard input is one JSON object:

    {"files": ["/path/a.parquet", ...],           files to open
     "keys": {"ring-1": "<base64 of 32 bytes>"},  master keys, as `counterfoil keys export` prints them
     "show": 5,                                   rows to print of each file, 0 for none
     "columns": ["ticket_id", ...]}               columns to read; all of them without it, or where it is empty

Standard output is one JSON object: per file its number of rows, row groups, columns with types, the ids of the master keys
that were asked for, and the first rows. A file that is not encrypted, or that was encrypted with any other key, fails.
"""

import base64
import json
import sys

import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class RingClient(pe.KmsClient):
    """Unwraps file keys with exported ring keys: nonce (12), AES-256-GCM ciphertext (32), tag (16); the key's id is the AAD."""

    def __init__(self, keys):
        super().__init__()
        self.keys = {key_id: AESGCM(base64.b64decode(key, validate=True)) for key_id, key in keys.items()}
        self.asked = []

    def wrap_key(self, key_bytes, master_key_identifier):
        raise NotImplementedError("this client reads only")

    def unwrap_key(self, wrapped_key, master_key_identifier):
        self.asked.append(master_key_identifier)
        wrapped = base64.b64decode(wrapped_key, validate=True)
        if len(wrapped) != 60:
            raise ValueError(f"wrapped key has {len(wrapped)} bytes, not 60")
        key = self.keys[master_key_identifier]
        return key.decrypt(wrapped[:12], wrapped[12:], master_key_identifier.encode())


def read(path, keys, show, columns):
    with open(path, "rb") as file:
        file.seek(-4, 2)
        magic = file.read(4)
    if magic != b"PARE":
        raise ValueError(f"{path} ends in {magic!r}: its footer is not encrypted")

    client = RingClient(keys)
    factory = pe.CryptoFactory(lambda configuration: client)
    decryption = factory.file_decryption_properties(pe.KmsConnectionConfig(), pe.DecryptionConfiguration())
    with pq.ParquetFile(path, decryption_properties=decryption) as file:
        table = file.read(columns=columns or None)
        metadata = file.metadata
        groups = metadata.num_row_groups
    table.validate(full=True)
    if table.num_rows != metadata.num_rows:
        raise ValueError(f"{path} holds {table.num_rows} rows, its footer says {metadata.num_rows}")
    return {
        "path": path,
        "rows": table.num_rows,
        "row_groups": groups,
        "columns": {field.name: str(field.type) for field in table.schema},
        "key_ids": sorted(set(client.asked)),
        "first": table.slice(0, show).to_pylist(),
    }


def main():
    request = json.load(sys.stdin)
    files = [read(path, request["keys"], request.get("show", 0), request.get("columns")) for path in request["files"]]
    json.dump({"files": files}, sys.stdout, default=str)
    print()


if __name__ == "__main__":
    main()
