"""Bodies that are no JSON: msgpack for all of a service, Avro for one class. See docs/serialization.md."""
