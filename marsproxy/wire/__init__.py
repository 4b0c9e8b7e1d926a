"""Reading requests and answers of the four tracked APIs without changing a byte of them.

``requests`` takes a light parse of a request body, ``normal`` turns messages into digests, ``splice``
adds the documented fields to the original bytes and takes the traces of them out of the answer,
``answers`` reads the answer on the side. Nothing in here does input or output.
"""
