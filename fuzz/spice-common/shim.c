/* Calls spice-common's parsers and marshallers, and turns its structs into values and back. */
#include <config.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <common/demarshallers.h>
#include <common/generated_client_marshallers.h>
#include <common/generated_server_marshallers.h>
#include <common/marshaller.h>
#include <common/messages.h>
#include <spice/enums.h>
#include <spice/protocol.h>

#include "shim.h"

/* Generated, and declared in no header of spice-common: its users declare them. */
uint8_t *spice_parse_msg(uint8_t *message_start, uint8_t *message_end, uint32_t channel, uint16_t message_type, int minor,
                         size_t *size_out, message_destructor_t *free_message);
uint8_t *spice_parse_reply(uint8_t *message_start, uint8_t *message_end, uint32_t channel, uint16_t message_type, int minor,
                           size_t *size_out, message_destructor_t *free_message);

/* How a field lies in its message's struct. */
typedef enum {
    END,
    /* A number of `size` bytes. */
    NUMBER,
    /* An array of `size` bytes. */
    ARRAY,
    /* A pointer to as many bytes as the number before it says, or NULL. */
    POINTER,
    /* The same, which the marshaller does not check for NULL. */
    NONNULL_POINTER,
    /* As many bytes as the number before it says, from here on. */
    BYTES,
    /* As many structs of `size` bytes with the fields of `item` as the number before it says, from here on. */
    ITEMS,
    /* No struct: the message is its bytes. */
    WHOLE,
} FieldKind;

typedef struct Field {
    FieldKind kind;
    size_t offset;
    size_t size;
    const struct Field *item;
} Field;

typedef struct {
    bool from_client;
    uint16_t id;
    size_t size;
    const Field *fields;
} Message;

#define SIZE(type, field) sizeof(((type *)NULL)->field)
#define NUMBER(type, field) { NUMBER, offsetof(type, field), SIZE(type, field), NULL }
#define ARRAY(type, field) { ARRAY, offsetof(type, field), SIZE(type, field), NULL }
#define POINTER(type, field) { POINTER, offsetof(type, field), 0, NULL }
#define NONNULL_POINTER(type, field) { NONNULL_POINTER, offsetof(type, field), 0, NULL }
#define BYTES(type, field) { BYTES, offsetof(type, field), 1, NULL }
#define ITEMS(type, field, item) { ITEMS, offsetof(type, field), SIZE(type, field[0]), item }
#define FIELDS(...) (const Field[]){ __VA_ARGS__, { END, 0, 0, NULL } }

static const Field wait_for_channel[] = {
    NUMBER(SpiceWaitForChannel, channel_type),
    NUMBER(SpiceWaitForChannel, channel_id),
    NUMBER(SpiceWaitForChannel, message_serial),
    { END, 0, 0, NULL },
};

static const Field channel_id[] = {
    NUMBER(SpiceChannelId, type),
    NUMBER(SpiceChannelId, id),
    { END, 0, 0, NULL },
};

#define DESTINATION(type, prefix, HOST) \
    NUMBER(type, prefix port), NUMBER(type, prefix sport), \
    NUMBER(type, prefix host_size), HOST(type, prefix host_data), \
    NUMBER(type, prefix cert_subject_size), POINTER(type, prefix cert_subject_data)

#define ONE_NUMBER(type, field) sizeof(type), FIELDS(NUMBER(type, field))
#define ONLY_BYTES 0, FIELDS({ WHOLE, 0, 0, NULL })
#define NO_FIELDS 0, FIELDS({ END, 0, 0, NULL })

static const Message messages[] = {
    { false, SPICE_MSG_MIGRATE, ONE_NUMBER(SpiceMsgMigrate, flags) },
    { false, SPICE_MSG_MIGRATE_DATA, ONLY_BYTES },
    { false, SPICE_MSG_SET_ACK, sizeof(SpiceMsgSetAck),
      FIELDS(NUMBER(SpiceMsgSetAck, generation), NUMBER(SpiceMsgSetAck, window)) },
    { false, SPICE_MSG_PING, sizeof(SpiceMsgPing),
      FIELDS(NUMBER(SpiceMsgPing, id), NUMBER(SpiceMsgPing, timestamp), NUMBER(SpiceMsgPing, data_len),
             POINTER(SpiceMsgPing, data)) },
    { false, SPICE_MSG_WAIT_FOR_CHANNELS, sizeof(SpiceMsgWaitForChannels),
      FIELDS(NUMBER(SpiceMsgWaitForChannels, wait_count),
             ITEMS(SpiceMsgWaitForChannels, wait_list, wait_for_channel)) },
    { false, SPICE_MSG_DISCONNECTING, sizeof(SpiceMsgDisconnect),
      FIELDS(NUMBER(SpiceMsgDisconnect, time_stamp), NUMBER(SpiceMsgDisconnect, reason)) },
    { false, SPICE_MSG_NOTIFY, sizeof(SpiceMsgNotify),
      FIELDS(NUMBER(SpiceMsgNotify, time_stamp), NUMBER(SpiceMsgNotify, severity), NUMBER(SpiceMsgNotify, visibilty),
             NUMBER(SpiceMsgNotify, what), NUMBER(SpiceMsgNotify, message_len), BYTES(SpiceMsgNotify, message)) },
    { false, SPICE_MSG_LIST, ONLY_BYTES },
    { false, SPICE_MSG_MAIN_MIGRATE_BEGIN, sizeof(SpiceMsgMainMigrationBegin),
      FIELDS(DESTINATION(SpiceMsgMainMigrationBegin, dst_info., NONNULL_POINTER)) },
    { false, SPICE_MSG_MAIN_MIGRATE_CANCEL, NO_FIELDS },
    { false, SPICE_MSG_MAIN_INIT, sizeof(SpiceMsgMainInit),
      FIELDS(NUMBER(SpiceMsgMainInit, session_id), NUMBER(SpiceMsgMainInit, display_channels_hint),
             NUMBER(SpiceMsgMainInit, supported_mouse_modes), NUMBER(SpiceMsgMainInit, current_mouse_mode),
             NUMBER(SpiceMsgMainInit, agent_connected), NUMBER(SpiceMsgMainInit, agent_tokens),
             NUMBER(SpiceMsgMainInit, multi_media_time), NUMBER(SpiceMsgMainInit, ram_hint)) },
    { false, SPICE_MSG_MAIN_CHANNELS_LIST, sizeof(SpiceMsgChannels),
      FIELDS(NUMBER(SpiceMsgChannels, num_of_channels), ITEMS(SpiceMsgChannels, channels, channel_id)) },
    { false, SPICE_MSG_MAIN_MOUSE_MODE, sizeof(SpiceMsgMainMouseMode),
      FIELDS(NUMBER(SpiceMsgMainMouseMode, supported_modes), NUMBER(SpiceMsgMainMouseMode, current_mode)) },
    { false, SPICE_MSG_MAIN_MULTI_MEDIA_TIME, ONE_NUMBER(SpiceMsgMainMultiMediaTime, time) },
    { false, SPICE_MSG_MAIN_AGENT_CONNECTED, NO_FIELDS },
    { false, SPICE_MSG_MAIN_AGENT_DISCONNECTED, ONE_NUMBER(SpiceMsgMainAgentDisconnect, error_code) },
    { false, SPICE_MSG_MAIN_AGENT_DATA, ONLY_BYTES },
    { false, SPICE_MSG_MAIN_AGENT_TOKEN, ONE_NUMBER(SpiceMsgMainAgentTokens, num_tokens) },
    { false, SPICE_MSG_MAIN_MIGRATE_SWITCH_HOST, sizeof(SpiceMsgMainMigrationSwitchHost),
      FIELDS(DESTINATION(SpiceMsgMainMigrationSwitchHost, , POINTER)) },
    { false, SPICE_MSG_MAIN_MIGRATE_END, NO_FIELDS },
    { false, SPICE_MSG_MAIN_NAME, sizeof(SpiceMsgMainName),
      FIELDS(NUMBER(SpiceMsgMainName, name_len), BYTES(SpiceMsgMainName, name)) },
    { false, SPICE_MSG_MAIN_UUID, sizeof(SpiceMsgMainUuid), FIELDS(ARRAY(SpiceMsgMainUuid, uuid)) },
    { false, SPICE_MSG_MAIN_AGENT_CONNECTED_TOKENS, ONE_NUMBER(SpiceMsgMainAgentConnectedTokens, num_tokens) },
    { false, SPICE_MSG_MAIN_MIGRATE_BEGIN_SEAMLESS, sizeof(SpiceMsgMainMigrateBeginSeamless),
      FIELDS(DESTINATION(SpiceMsgMainMigrateBeginSeamless, dst_info., NONNULL_POINTER),
             NUMBER(SpiceMsgMainMigrateBeginSeamless, src_mig_version)) },
    { false, SPICE_MSG_MAIN_MIGRATE_DST_SEAMLESS_ACK, NO_FIELDS },
    { false, SPICE_MSG_MAIN_MIGRATE_DST_SEAMLESS_NACK, NO_FIELDS },

    { true, SPICE_MSGC_ACK_SYNC, ONE_NUMBER(SpiceMsgcAckSync, generation) },
    { true, SPICE_MSGC_ACK, NO_FIELDS },
    /* The struct has PING's data too, which neither the parser nor the marshaller of PONG touches. */
    { true, SPICE_MSGC_PONG, sizeof(SpiceMsgPing),
      FIELDS(NUMBER(SpiceMsgPing, id), NUMBER(SpiceMsgPing, timestamp)) },
    { true, SPICE_MSGC_MIGRATE_FLUSH_MARK, NO_FIELDS },
    { true, SPICE_MSGC_MIGRATE_DATA, ONLY_BYTES },
    { true, SPICE_MSGC_DISCONNECTING, sizeof(SpiceMsgDisconnect),
      FIELDS(NUMBER(SpiceMsgDisconnect, time_stamp), NUMBER(SpiceMsgDisconnect, reason)) },
    { true, SPICE_MSGC_MAIN_CLIENT_INFO, ONE_NUMBER(SpiceMsgcClientInfo, cache_size) },
    { true, SPICE_MSGC_MAIN_MIGRATE_CONNECTED, NO_FIELDS },
    { true, SPICE_MSGC_MAIN_MIGRATE_CONNECT_ERROR, NO_FIELDS },
    { true, SPICE_MSGC_MAIN_ATTACH_CHANNELS, NO_FIELDS },
    { true, SPICE_MSGC_MAIN_MOUSE_MODE_REQUEST, ONE_NUMBER(SpiceMsgcMainMouseModeRequest, mode) },
    { true, SPICE_MSGC_MAIN_AGENT_START, ONE_NUMBER(SpiceMsgcMainAgentStart, num_tokens) },
    { true, SPICE_MSGC_MAIN_AGENT_DATA, ONLY_BYTES },
    { true, SPICE_MSGC_MAIN_AGENT_TOKEN, ONE_NUMBER(SpiceMsgcMainAgentTokens, num_tokens) },
    { true, SPICE_MSGC_MAIN_MIGRATE_END, NO_FIELDS },
    { true, SPICE_MSGC_MAIN_MIGRATE_DST_DO_SEAMLESS, ONE_NUMBER(SpiceMsgcMainMigrateDstDoSeamless, src_version) },
    { true, SPICE_MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS, NO_FIELDS },
    { true, SPICE_MSGC_MAIN_QUALITY_INDICATOR, ONLY_BYTES },
};

static const Message *find_message(bool from_client, uint16_t id)
{
    for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
        if (messages[i].from_client == from_client && messages[i].id == id) {
            return &messages[i];
        }
    }
    return NULL;
}

/* ---- From bytes to values ---- */

/* spice-common's code takes pointers to what it does not change. */
static uint8_t *unconst(const uint8_t *bytes)
{
    return (uint8_t *)(uintptr_t)bytes;
}

static inline uint8_t *parse(bool from_client, uint32_t channel, uint16_t id, const uint8_t *body, size_t length,
                             size_t *size, message_destructor_t *destroy)
{
    return (from_client ? spice_parse_reply : spice_parse_msg)(unconst(body), unconst(body) + length, channel, id,
                                                               SPICE_VERSION_MINOR, size, destroy);
}

bool oracle_demarshall_and_discard(bool from_client, uint32_t channel, uint16_t id, const uint8_t *body, size_t length)
{
    size_t size;
    message_destructor_t destroy;
    uint8_t *message = parse(from_client, channel, id, body, length, &size, &destroy);

    if (message == NULL) {
        return false;
    }
    destroy(message);
    return true;
}

static uint64_t get_number(const uint8_t *place, size_t size)
{
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;

    switch (size) {
    case sizeof(u8):
        memcpy(&u8, place, size);
        return u8;
    case sizeof(u16):
        memcpy(&u16, place, size);
        return u16;
    case sizeof(u32):
        memcpy(&u32, place, size);
        return u32;
    case sizeof(u64):
        memcpy(&u64, place, size);
        return u64;
    default:
        abort();
    }
}

static void give_number(uint64_t number, ValueSink sink, void *context)
{
    Value value = { VALUE_NUMBER, number, NULL, 0 };
    sink(context, &value);
}

static void give_bytes(const uint8_t *bytes, size_t length, ValueSink sink, void *context)
{
    Value value = { VALUE_BYTES, 0, bytes, length };
    sink(context, &value);
}

static void give_fields(const Field *field, const uint8_t *message, size_t message_size, ValueSink sink, void *context)
{
    uint64_t last_number = 0;

    for (; field->kind != END; field++) {
        const uint8_t *place = message + field->offset;
        uint8_t *pointer;

        switch (field->kind) {
        case END:
            break;
        case NUMBER:
            last_number = get_number(place, field->size);
            give_number(last_number, sink, context);
            break;
        case ARRAY:
            give_bytes(place, field->size, sink, context);
            break;
        case POINTER:
        case NONNULL_POINTER:
            memcpy(&pointer, place, sizeof(pointer));
            if (pointer == NULL) {
                Value value = { VALUE_ABSENT, 0, NULL, 0 };
                sink(context, &value);
            } else {
                give_bytes(pointer, last_number, sink, context);
            }
            break;
        case BYTES:
            give_bytes(place, last_number, sink, context);
            break;
        case ITEMS:
            for (uint64_t i = 0; i < last_number; i++) {
                give_fields(field->item, place + i * field->size, field->size, sink, context);
            }
            break;
        case WHOLE:
            give_bytes(message, message_size, sink, context);
            break;
        }
    }
}

bool oracle_demarshall(bool from_client, uint32_t channel, uint16_t id, const uint8_t *body, size_t length,
                       ValueSink sink, void *context)
{
    size_t size;
    message_destructor_t destroy;
    uint8_t *message = parse(from_client, channel, id, body, length, &size, &destroy);
    const Message *known = id > 100 && channel != SPICE_CHANNEL_MAIN ? NULL : find_message(from_client, id);

    if (message == NULL) {
        return false;
    }
    if (known != NULL) {
        give_fields(known->fields, message, size, sink, context);
    }
    destroy(message);
    return true;
}

/* ---- From values to bytes ---- */

struct Sender {
    SpiceMarshaller *marshaller;
    const Message *message;
    /* The struct, or the bytes of a message without one. */
    const uint8_t *data;
    size_t length;
    /* What of it is ours. */
    void *allocated;
};

typedef struct {
    const Value *next;
    const Value *end;
} Values;

static const Value *take(Values *values, ValueKind kind)
{
    return values->next != values->end && values->next->kind == (uint32_t)kind ? values->next++ : NULL;
}

static bool set_number(uint8_t *place, size_t size, uint64_t number)
{
    uint8_t u8 = number;
    uint16_t u16 = number;
    uint32_t u32 = number;

    switch (size) {
    case sizeof(u8):
        memcpy(place, &u8, size);
        break;
    case sizeof(u16):
        memcpy(place, &u16, size);
        break;
    case sizeof(u32):
        memcpy(place, &u32, size);
        break;
    case sizeof(number):
        memcpy(place, &number, size);
        break;
    default:
        abort();
    }
    return get_number(place, size) == number;
}

/* INVARIANT: `message` has room for all that the values can fill. */
static bool set_fields(const Field *field, uint8_t *message, Values *values)
{
    uint64_t last_number = 0;

    for (; field->kind != END; field++) {
        const uint8_t *const absent = NULL;
        uint8_t *place = message + field->offset;
        const Value *value;

        switch (field->kind) {
        case END:
            break;
        case NUMBER:
            value = take(values, VALUE_NUMBER);
            if (value == NULL || !set_number(place, field->size, value->number)) {
                return false;
            }
            last_number = value->number;
            break;
        case ARRAY:
            value = take(values, VALUE_BYTES);
            if (value == NULL || value->length != field->size) {
                return false;
            }
            memcpy(place, value->bytes, value->length);
            break;
        case POINTER:
            if (take(values, VALUE_ABSENT) != NULL) {
                memcpy(place, &absent, sizeof(absent));
                break;
            }
            /* fall through */
        case NONNULL_POINTER:
            value = take(values, VALUE_BYTES);
            if (value == NULL || value->length != last_number) {
                return false;
            }
            memcpy(place, &value->bytes, sizeof(value->bytes));
            break;
        case BYTES:
            value = take(values, VALUE_BYTES);
            if (value == NULL || value->length != last_number) {
                return false;
            }
            memcpy(place, value->bytes, value->length);
            break;
        case ITEMS:
            for (uint64_t i = 0; i < last_number; i++) {
                if (values->next == values->end || !set_fields(field->item, place + i * field->size, values)) {
                    return false;
                }
            }
            break;
        case WHOLE:
            abort();
        }
    }
    return true;
}

Sender *oracle_sender_new(bool from_client, uint16_t id, const Value *values, size_t count)
{
    const Message *message = find_message(from_client, id);
    Values left = { values, values + count };
    Sender *sender;
    bool complete;

    if (message == NULL) {
        return NULL;
    }
    sender = spice_new0(Sender, 1);
    sender->message = message;
    sender->marshaller = spice_marshaller_new();
    if (message->fields->kind == WHOLE) {
        const Value *value = take(&left, VALUE_BYTES);

        complete = value != NULL;
        if (complete) {
            sender->data = value->bytes;
            sender->length = value->length;
        }
    } else {
        /* No value fills more than its bytes or one item. */
        size_t room = message->size + 1;

        for (size_t i = 0; i < count; i++) {
            room += values[i].kind == VALUE_BYTES ? values[i].length : sizeof(SpiceWaitForChannel);
        }
        sender->allocated = spice_malloc0(room);
        sender->data = sender->allocated;
        complete = set_fields(message->fields, sender->allocated, &left);
    }
    if (!complete || left.next != left.end) {
        oracle_sender_destroy(sender);
        return NULL;
    }
    return sender;
}

void oracle_sender_destroy(Sender *sender)
{
    spice_marshaller_destroy(sender->marshaller);
    free(sender->allocated);
    free(sender);
}

/* The generated marshaller, and what spice-server and spice-gtk add to the message by hand. */
static void marshall_from_server(const Sender *sender)
{
    SpiceMarshaller *m = sender->marshaller;
    const void *message = sender->data;

    switch (sender->message->id) {
    case SPICE_MSG_MIGRATE:
        spice_marshall_msg_migrate(m, message);
        break;
    case SPICE_MSG_MIGRATE_DATA:
    case SPICE_MSG_LIST:
    case SPICE_MSG_MAIN_AGENT_DATA:
        spice_marshall_SpiceMsgData(m, message);
        spice_marshaller_add_by_ref(m, sender->data, sender->length);
        break;
    case SPICE_MSG_SET_ACK:
        spice_marshall_msg_set_ack(m, message);
        break;
    case SPICE_MSG_PING: {
        const SpiceMsgPing *ping = message;

        spice_marshall_msg_ping(m, ping);
        spice_marshaller_add_by_ref(m, ping->data, ping->data_len);
        break;
    }
    case SPICE_MSG_WAIT_FOR_CHANNELS:
        spice_marshall_msg_wait_for_channels(m, message);
        break;
    case SPICE_MSG_DISCONNECTING:
        spice_marshall_msg_disconnecting(m, message);
        break;
    case SPICE_MSG_NOTIFY: {
        const SpiceMsgNotify *notify = message;

        spice_marshall_msg_notify(m, notify);
        spice_marshaller_add_by_ref(m, notify->message, notify->message_len);
        spice_marshaller_add_uint8(m, 0);
        break;
    }
    case SPICE_MSG_MAIN_MIGRATE_BEGIN:
        spice_marshall_msg_main_migrate_begin(m, message);
        break;
    case SPICE_MSG_MAIN_INIT:
        spice_marshall_msg_main_init(m, message);
        break;
    case SPICE_MSG_MAIN_CHANNELS_LIST:
        spice_marshall_msg_main_channels_list(m, message);
        break;
    case SPICE_MSG_MAIN_MOUSE_MODE:
        spice_marshall_msg_main_mouse_mode(m, message);
        break;
    case SPICE_MSG_MAIN_MULTI_MEDIA_TIME:
        spice_marshall_msg_main_multi_media_time(m, message);
        break;
    case SPICE_MSG_MAIN_AGENT_DISCONNECTED:
        spice_marshall_msg_main_agent_disconnected(m, message);
        break;
    case SPICE_MSG_MAIN_AGENT_TOKEN:
        spice_marshall_msg_main_agent_token(m, message);
        break;
    case SPICE_MSG_MAIN_MIGRATE_SWITCH_HOST:
        spice_marshall_msg_main_migrate_switch_host(m, message);
        break;
    case SPICE_MSG_MAIN_NAME:
        spice_marshall_msg_main_name(m, message);
        break;
    case SPICE_MSG_MAIN_UUID:
        spice_marshall_msg_main_uuid(m, message);
        break;
    case SPICE_MSG_MAIN_AGENT_CONNECTED_TOKENS:
        spice_marshall_msg_main_agent_connected_tokens(m, message);
        break;
    case SPICE_MSG_MAIN_MIGRATE_BEGIN_SEAMLESS:
        spice_marshall_msg_main_migrate_begin_seamless(m, message);
        break;
    default:
        spice_marshall_SpiceMsgEmpty(m, message);
        break;
    }
}

static void marshall_from_client(const Sender *sender)
{
    const SpiceMessageMarshallers *marshallers = spice_message_marshallers_get();
    SpiceMarshaller *m = sender->marshaller;
    const void *message = sender->data;

    switch (sender->message->id) {
    case SPICE_MSGC_ACK_SYNC:
        marshallers->msgc_ack_sync(m, message);
        break;
    case SPICE_MSGC_PONG:
        marshallers->msgc_pong(m, message);
        break;
    case SPICE_MSGC_MIGRATE_DATA:
    case SPICE_MSGC_MAIN_AGENT_DATA:
    case SPICE_MSGC_MAIN_QUALITY_INDICATOR:
        marshallers->msg_SpiceMsgData(m, message);
        spice_marshaller_add_by_ref(m, sender->data, sender->length);
        break;
    case SPICE_MSGC_DISCONNECTING:
        marshallers->msgc_disconnecting(m, message);
        break;
    case SPICE_MSGC_MAIN_CLIENT_INFO:
        marshallers->msgc_main_client_info(m, message);
        break;
    case SPICE_MSGC_MAIN_MOUSE_MODE_REQUEST:
        marshallers->msgc_main_mouse_mode_request(m, message);
        break;
    case SPICE_MSGC_MAIN_AGENT_START:
        marshallers->msgc_main_agent_start(m, message);
        break;
    case SPICE_MSGC_MAIN_AGENT_TOKEN:
        marshallers->msgc_main_agent_token(m, message);
        break;
    case SPICE_MSGC_MAIN_MIGRATE_DST_DO_SEAMLESS:
        marshallers->msgc_main_migrate_dst_do_seamless(m, message);
        break;
    default:
        marshallers->msg_SpiceMsgEmpty(m, message);
        break;
    }
}

/* As spice-server sends: the marshaller is kept and reset, and offsets count from behind the header. spice-server would then
 * write the pieces with writev; this joins them as spice-gtk does, for a message in one piece of memory. */
static uint8_t *marshall(Sender *sender, size_t skip, size_t *length, int *must_free)
{
    SpiceMarshaller *m = sender->marshaller;
    SpiceMiniDataHeader *header;

    spice_marshaller_reset(m);
    header = (SpiceMiniDataHeader *)spice_marshaller_reserve_space(m, sizeof(*header));
    spice_marshaller_set_base(m, sizeof(*header));
    if (sender->message->from_client) {
        marshall_from_client(sender);
    } else {
        marshall_from_server(sender);
    }
    spice_marshaller_flush(m);
    header->type = sender->message->id;
    header->size = spice_marshaller_get_total_size(m) - sizeof(*header);
    return spice_marshaller_linearize(m, skip, length, must_free);
}

void oracle_sender_marshall(Sender *sender, size_t skip, ValueSink sink, void *context)
{
    size_t length;
    int must_free;
    uint8_t *bytes = marshall(sender, skip, &length, &must_free);

    give_bytes(bytes, length, sink, context);
    if (must_free) {
        free(bytes);
    }
}

size_t oracle_sender_marshall_and_discard(Sender *sender)
{
    size_t length;
    int must_free;
    uint8_t *bytes = marshall(sender, 0, &length, &must_free);

    if (must_free) {
        free(bytes);
    }
    return length;
}

/* spice-common logs through glib and then aborts where it cannot go on. Here nothing but that is expected. */
void spice_log(GLogLevelFlags log_level, const char *strloc, const char *function, const char *format, ...)
{
    va_list arguments;

    (void)log_level;
    fprintf(stderr, "spice-common at %s, %s: ", strloc, function);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    abort();
}
