/* What Rust sees of spice-common: no struct of a message, only numbers and bytes in the order of its declaration. */
#ifndef SPICE_COMMON_ORACLE_SHIM_H
#define SPICE_COMMON_ORACLE_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { VALUE_NUMBER = 0, VALUE_BYTES = 1, VALUE_ABSENT = 2 } ValueKind;

/* A field's value. */
typedef struct {
    uint32_t kind;
    uint64_t number;
    const uint8_t *bytes;
    size_t length;
} Value;

/* Receives the values of a parsed message in order. */
typedef void (*ValueSink)(void *context, const Value *value);

/* Parses a body and frees what came of it; false if it is refused. */
bool oracle_demarshall_and_discard(bool from_client, uint32_t channel, uint16_t id, const uint8_t *body, size_t length);

/* The same, and hands the fields over before they are freed. */
bool oracle_demarshall(bool from_client, uint32_t channel, uint16_t id, const uint8_t *body, size_t length,
                       ValueSink sink, void *context);

/* A message's C struct and the marshaller that its sender keeps. */
typedef struct Sender Sender;

/* Builds the struct; NULL if the values are not what the message has. The values' bytes must outlive the sender. */
Sender *oracle_sender_new(bool from_client, uint16_t id, const Value *values, size_t count);

void oracle_sender_destroy(Sender *sender);

/* Marshals a mini header and the body, and hands over the bytes behind the first `skip`. */
void oracle_sender_marshall(Sender *sender, size_t skip, ValueSink sink, void *context);

/* The same without handing over; returns the length. */
size_t oracle_sender_marshall_and_discard(Sender *sender);

#endif
