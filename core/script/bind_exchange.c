// The abi of one exchange: texts, numbers, headers, answering.
#include "base/arena.h"
#include "http/head.h"
#include "io/loop.h"
#include "io/tls.h"
#include "script/abi.h"
#include "script/vm_priv.h"

#include "filter/filter.h"

#include <stdlib.h>
#include <string.h>

static const uint32_t request_edits = 1u << MOON_ABI_REWRITE | 1u << MOON_ABI_ACCESS,
                      response_edits = 1u << MOON_ABI_HEADER_FILTER,
                      response_reads = 1u << MOON_ABI_HEADER_FILTER | 1u << MOON_ABI_BODY_FILTER |
                                       1u << MOON_ABI_WEBSOCKET_FRAME | 1u << MOON_ABI_LOG;

static struct moon_flow *flow_of(const void *handle)
{
    const struct moon_abi_exchange *exchange = handle;
    struct moon_slot *slot = exchange->slot;
    return slot && slot->generation == exchange->generation ? slot->flow : NULL;
}

static struct moon_slot *slot_of(const void *handle)
{
    return ((const struct moon_abi_exchange *)handle)->slot;
}

static int put(struct moon_slice text, struct moon_abi_text *out)
{
    *out = (struct moon_abi_text){text.ptr, text.len};
    return text.ptr ? MOON_ABI_OK : MOON_ABI_NONE;
}

uint32_t moon_abi_slot_index(const void *handle)
{
    struct moon_slot *slot = slot_of(handle);
    if (!flow_of(handle))
        return 0;
    slot->has_tables = true;
    return slot->index;
}

// ---- texts

static int client_address(struct moon_slot *slot, struct moon_abi_text *out)
{
    if (!slot->client[0])
        moon_address_format_ip(&slot->flow->client, slot->client);
    return put(moon_slice_from(slot->client), out);
}

static int get_tls(const struct moon_tls_facts *tls, int what, struct moon_abi_text *out)
{
    switch (tls ? what : 0) {
    case 'V':
        return put(moon_slice_from(tls->version), out);
    case 'C':
        return put(moon_slice_from(tls->cipher), out);
    case 'S':
        return put(tls->sni, out);
    case 'J':
        return put(tls->subject, out);
    case 'A':
        return put(tls->sans, out);
    case 'F':
        return put(tls->fingerprint, out);
    case 'N':
        return put(tls->serial, out);
    default:
        return MOON_ABI_NONE;
    }
}

int moon_abi_get_text(const void *handle, int what, struct moon_abi_text *out)
{
    struct moon_flow *flow = flow_of(handle);
    if (!flow)
        return MOON_ABI_ENDED;
    const struct moon_head *request = flow->request;
    switch (what) {
    case 'm':
        return put(request->method, out);
    case 's':
        return put(moon_slice_from(flow->scheme), out);
    case 'h':
        return put(request->host.host, out);
    case 'p':
        return put(request->target.path, out);
    case 'q':
        return put(request->target.has_query ? request->target.query : (struct moon_slice){NULL, 0},
                   out);
    case 'i':
        return put(flow->ops->id(flow), out);
    case 'r':
        return put(flow->ops->route(flow), out);
    case 'u':
        put(flow->ops->upstream(flow), out);
        return out->len ? MOON_ABI_OK : MOON_ABI_NONE;
    case 'a':
        return client_address(slot_of(handle), out);
    default:
        return get_tls(flow->tls, what, out);
    }
}

static int set_method(struct moon_flow *flow, struct moon_slice text)
{
    enum moon_method method = moon_method_from(text);
    if (method == MOON_METHOD_OTHER || method == MOON_METHOD_CONNECT)
        return MOON_ABI_INVALID;
    flow->request->method = text;
    flow->request->method_id = method;
    return MOON_ABI_OK;
}

static int set_host(struct moon_flow *flow, struct moon_slice text)
{
    struct moon_authority host;
    if (!moon_authority_parse(text, &host))
        return MOON_ABI_INVALID;
    flow->request->host = host;
    flow->request->host_text = text;
    return MOON_ABI_OK;
}

static int set_path(struct moon_flow *flow, struct moon_slice text)
{
    const char *reason = NULL;
    if (text.len == 0 || text.ptr[0] != '/' || memchr(text.ptr, '?', text.len) ||
        memchr(text.ptr, '#', text.len))
        return MOON_ABI_INVALID;
    struct moon_slice path = moon_path_normalise(flow->arena, text, MOON_SLASH_KEEP, &reason);
    if (!path.ptr)
        return MOON_ABI_INVALID;
    flow->request->target.path = path;
    flow->request->target.is_verbatim = false;
    flow->matched_prefix = MOON_SLICE("");
    return MOON_ABI_OK;
}

static int set_query(struct moon_flow *flow, struct moon_slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char byte = (unsigned char)text.ptr[i];
        if (byte <= ' ' || byte >= 0x7f || byte == '#')
            return MOON_ABI_INVALID;
    }
    flow->request->target.query = text;
    flow->request->target.has_query = text.len > 0;
    flow->request->target.is_verbatim = false;
    return MOON_ABI_OK;
}

int moon_abi_set_text(const void *handle, int what, const char *ptr, size_t len)
{
    struct moon_flow *flow = flow_of(handle);
    if (!flow)
        return MOON_ABI_ENDED;
    int refusal = moon_slot_check(slot_of(handle), request_edits);
    if (refusal)
        return refusal;
    struct moon_slice text = moon_arena_try_copy(flow->arena, (struct moon_slice){ptr, len});
    if (!text.ptr)
        return MOON_ABI_MEMORY;
    switch (what) {
    case 'm':
        return set_method(flow, text);
    case 'h':
        return set_host(flow, text);
    case 'p':
        return set_path(flow, text);
    case 'q':
        return set_query(flow, text);
    default:
        return MOON_ABI_INVALID;
    }
}

// ---- numbers

int moon_abi_get_number(const void *handle, int what, double *out)
{
    struct moon_flow *flow = flow_of(handle);
    if (!flow)
        return MOON_ABI_ENDED;
    switch (what) {
    case 's':
        *out = flow->response->status;
        return flow->response->status ? MOON_ABI_OK : MOON_ABI_NONE;
    case 'p':
        *out = flow->request->host.port;
        return flow->request->host.port ? MOON_ABI_OK : MOON_ABI_NONE;
    case 'c':
        *out = flow->client.port;
        return MOON_ABI_OK;
    case 'l':
        *out = (double)flow->response_body_len;
        return MOON_ABI_OK;
    case 'n':
        *out = (double)flow->request_body_len;
        return MOON_ABI_OK;
    case 'd':
        *out = (double)(moon_loop_now_ms(flow->loop) - flow->start_ms) / 1000;
        return MOON_ABI_OK;
    default:
        return MOON_ABI_NONE;
    }
}

int moon_abi_set_status(const void *handle, int status)
{
    struct moon_flow *flow = flow_of(handle);
    if (!flow)
        return MOON_ABI_ENDED;
    int refusal = moon_slot_check(slot_of(handle), response_edits);
    if (refusal)
        return refusal;
    // What has no body by its status is another message.
    uint16_t now = flow->response->status;
    if (status < 200 || status > 599 || now == 101 || (status == 204) != (now == 204) ||
        (status == 304) != (now == 304))
        return MOON_ABI_INVALID;
    flow->response->status = (uint16_t)status;
    flow->response->reason = moon_status_reason((uint16_t)status);
    return MOON_ABI_OK;
}

// ---- headers

// The head a handle of headers stands for. NULL with *code when it may not be looked at.
static struct moon_head *head_of(const void *handle, struct moon_flow **flow, int *code)
{
    const struct moon_abi_headers *headers = handle;
    *flow = flow_of(handle);
    *code = MOON_ABI_ENDED;
    if (!*flow)
        return NULL;
    *code = MOON_ABI_PHASE;
    if (!headers->is_response)
        return (*flow)->request;
    const struct moon_slot *slot = headers->slot;
    if (!slot->is_answered)
        *code = moon_slot_check(slot, response_reads);
    bool is_readable = slot->is_answered || *code == MOON_ABI_OK || *code == MOON_ABI_OVER;
    *code = is_readable ? MOON_ABI_PHASE : *code;
    return (*flow)->response->status && is_readable ? (*flow)->response : NULL;
}

static struct moon_head *head_to_edit(const void *handle, struct moon_flow **flow, int *code)
{
    const struct moon_abi_headers *headers = handle;
    struct moon_head *head = head_of(handle, flow, code);
    const struct moon_slot *slot = headers->slot;
    uint32_t phases = !headers->is_response ? request_edits
                      : slot->is_answered   ? request_edits | response_edits
                                            : response_edits;
    int refusal = head ? moon_slot_check(slot, phases) : MOON_ABI_OK;
    *code = refusal ? refusal : *code;
    return refusal ? NULL : head;
}

// As moon_headers_join, in memory of the VM until the next call: a tunnel may last for days and read as often as it likes.
static struct moon_slice join(struct moon_vm *vm, const struct moon_headers *headers,
                              struct moon_slice name)
{
    struct moon_slice glue =
        moon_header_id(name) == MOON_H_COOKIE ? MOON_SLICE("; ") : MOON_SLICE(", ");
    uint32_t at = 0;
    const struct moon_field *field = moon_headers_next(headers, name, &at);
    struct moon_slice first = field ? field->value : (struct moon_slice){NULL, 0};
    size_t len = 0;
    for (field = field ? moon_headers_next(headers, name, &at) : NULL; field;
         field = moon_headers_next(headers, name, &at)) {
        const struct moon_slice pieces[] = {first, glue, field->value};
        for (size_t i = len ? 1 : 0; i < 3; i++) {
            if (!moon_vm_scratch(vm, len + pieces[i].len + 1))
                return (struct moon_slice){NULL, 1};
            if (pieces[i].len)
                memcpy(vm->scratch + len, pieces[i].ptr, pieces[i].len);
            len += pieces[i].len;
        }
    }
    return len ? (struct moon_slice){vm->scratch, len} : first;
}

int moon_abi_header_get(void *slot, uint32_t generation, uint32_t is_response, const char *name,
                        size_t len, struct moon_abi_text *out)
{
    const struct moon_abi_headers headers = {slot, generation, is_response};
    struct moon_flow *flow;
    int code;
    const struct moon_head *head = head_of(&headers, &flow, &code);
    if (!head)
        return code;
    struct moon_vm *vm = slot_of(&headers)->vm;
    bool is_tunnel = vm->current && vm->current->phase == MOON_ABI_WEBSOCKET_FRAME;
    struct moon_slice wanted = {name, len};
    struct moon_slice all = is_tunnel ? join(vm, &head->headers, wanted)
                                      : moon_headers_join(&head->headers, flow->arena, wanted);
    if (!all.ptr && all.len)
        return MOON_ABI_MEMORY;
    return put(all, out);
}

int moon_abi_header_next(void *slot, uint32_t generation, uint32_t is_response, const char *name,
                         size_t len, uint32_t *at, struct moon_abi_text *out)
{
    const struct moon_abi_headers headers = {slot, generation, is_response};
    struct moon_flow *flow;
    int code;
    const struct moon_head *head = head_of(&headers, &flow, &code);
    if (!head)
        return code;
    const struct moon_field *field =
        moon_headers_next(&head->headers, (struct moon_slice){name, len}, at);
    return field ? put(field->value, out) : MOON_ABI_NONE;
}

int moon_abi_header_at(void *slot, uint32_t generation, uint32_t is_response, uint32_t index,
                       struct moon_abi_text *name, struct moon_abi_text *value)
{
    const struct moon_abi_headers headers = {slot, generation, is_response};
    struct moon_flow *flow;
    int code;
    const struct moon_head *head = head_of(&headers, &flow, &code);
    if (!head)
        return code;
    if (index >= head->headers.count)
        return MOON_ABI_NONE;
    put(head->headers.fields[index].name, name);
    return put(head->headers.fields[index].value, value);
}

// Framing and what belongs to one hop is the gateway's: an edit would be ignored, or worse, not.
static bool may_edit(struct moon_slice name)
{
    switch (moon_header_id(name)) {
    case MOON_H_HOST:
    case MOON_H_CONNECTION:
    case MOON_H_CONTENT_LENGTH:
    case MOON_H_TRANSFER_ENCODING:
    case MOON_H_TE:
    case MOON_H_TRAILER:
    case MOON_H_UPGRADE:
    case MOON_H_KEEP_ALIVE:
    case MOON_H_PROXY_CONNECTION:
    case MOON_H_HTTP2_SETTINGS:
    case MOON_H_EXPECT:
        return false;
    case MOON_H_OTHER:
        return moon_header_name_is_valid(name);
    default:
        return true; // a name of the table is a token
    }
}

static int edit(const struct moon_abi_headers *handle, struct moon_slice name,
                struct moon_slice value, bool is_add)
{
    struct moon_flow *flow;
    int code;
    struct moon_head *head = head_to_edit(handle, &flow, &code);
    if (!head)
        return code;
    if (!may_edit(name) || !moon_header_value_is_valid(value))
        return MOON_ABI_INVALID;
    char *text = moon_arena_try_bytes(flow->arena, name.len + value.len);
    if (!text)
        return MOON_ABI_MEMORY;
    memcpy(text, name.ptr, name.len);
    memcpy(text + name.len, value.ptr, value.len);
    name.ptr = text;
    value.ptr = text + name.len;
    int err = is_add ? moon_headers_add(&head->headers, flow->arena, name, value)
                     : moon_headers_set(&head->headers, flow->arena, name, value);
    return err ? MOON_ABI_MEMORY : MOON_ABI_OK;
}

int moon_abi_header_set(void *slot, uint32_t generation, uint32_t is_response, const char *name,
                        size_t name_len, const char *value, size_t value_len)
{
    const struct moon_abi_headers headers = {slot, generation, is_response};
    return edit(&headers, (struct moon_slice){name, name_len},
                (struct moon_slice){value, value_len}, false);
}

int moon_abi_header_add(void *slot, uint32_t generation, uint32_t is_response, const char *name,
                        size_t name_len, const char *value, size_t value_len)
{
    const struct moon_abi_headers headers = {slot, generation, is_response};
    return edit(&headers, (struct moon_slice){name, name_len},
                (struct moon_slice){value, value_len}, true);
}

int moon_abi_header_del(void *slot, uint32_t generation, uint32_t is_response, const char *name,
                        size_t len)
{
    const struct moon_abi_headers headers = {slot, generation, is_response};
    struct moon_flow *flow;
    int code;
    struct moon_head *head = head_to_edit(&headers, &flow, &code);
    if (!head)
        return code;
    if (!may_edit((struct moon_slice){name, len}))
        return MOON_ABI_INVALID;
    moon_headers_del(&head->headers, (struct moon_slice){name, len});
    return MOON_ABI_OK;
}

// ---- answering

// Lives as long as the exchange.
static struct moon_slice keep(struct moon_flow *flow, const char *ptr, size_t len)
{
    char *copy = malloc(len + 1);
    if (!copy)
        return (struct moon_slice){NULL, 0};
    if (len)
        memcpy(copy, ptr, len);
    moon_arena_on_free(flow->arena, free, copy);
    return (struct moon_slice){copy, len};
}

int moon_abi_respond(const void *handle, int status, const char *body, size_t body_len,
                     const char *type, size_t type_len)
{
    struct moon_flow *flow = flow_of(handle);
    if (!flow)
        return MOON_ABI_ENDED;
    struct moon_slot *slot = slot_of(handle);
    int refusal = moon_slot_check(slot, request_edits);
    if (refusal || slot->vm->current->is_task)
        return refusal ? refusal : MOON_ABI_PHASE;
    struct moon_slice own_type =
                          moon_arena_try_copy(flow->arena, (struct moon_slice){type, type_len}),
                      own_body = MOON_SLICE("");
    if (status < 200 || status > 599 || !moon_header_value_is_valid(own_type))
        return MOON_ABI_INVALID;
    if (body_len)
        own_body = keep(flow, body, body_len);
    if (!own_type.ptr || !own_body.ptr)
        return MOON_ABI_MEMORY;
    flow->ops->respond(flow, (uint16_t)status, own_type, own_body);
    slot->is_answered = true;
    return MOON_ABI_OK;
}
