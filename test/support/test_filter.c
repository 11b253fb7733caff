// See test_filter.h. What a hook does once it need not wait is in the tables of its configuration:
//
//   { "test", name = "a", rewrite = { wait = 0.1, verdict = "answer", status = 403, body = "no", set = { ["x-a"] = "1" } },
//     response_body = { mode = "hold", wait = 0.1, at = "end", len = 65536, fail_after = 1000 } }
//
//     access = { read = { len = 100, pause = 0.01, every = 65536, till = 1000, fail_after = 10 }, replace = "text", text = "x" }
//       has the body read: at most len bytes a call, refusing for a pause after every so many, no more than till
//
//   hook called -> ARMED --timer--> FIRED --called again--> OVER        ARMED, FIRED --cancel--> OVER
#include "test/support/test_filter.h"

#include "base/arena.h"
#include "conf/schema.h"
#include "http/head.h"
#include "io/loop.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum hook {
    HOOK_REWRITE,
    HOOK_ACCESS,
    HOOK_HEADER_FILTER,
    HOOK_LOG,
    HOOK_REQUEST_BODY,
    HOOK_RESPONSE_BODY,
    HOOK_COUNT
};
enum { HEAD_HOOK_COUNT = HOOK_LOG + 1, REFUSED_LEN = 32 };

static const char *const hook_names[] = {"rewrite", "access",       "header_filter",
                                         "log",     "request_body", "response_body"};

// ---- configuration

static const char *const verdicts[] = {"next", "answer", "done", "fail", "abort", NULL};
enum verdict { VERDICT_NEXT, VERDICT_ANSWER, VERDICT_DONE, VERDICT_FAIL, VERDICT_ABORT };

static const char *const modes[] = {"pass",        "pieces",     "partial", "upper",
                                    "hold",        "hold_until", "drop",    "cut",
                                    "append_only", "swallow",    "late",    NULL};
enum mode {
    MODE_PASS,        // as it is
    MODE_PIECES,      // in pieces of len
    MODE_PARTIAL,     // takes at most len a call
    MODE_UPPER,       // letters become capitals
    MODE_HOLD,        // everything at the end; more than len fails
    MODE_HOLD_UNTIL,  // nothing until there are len bytes
    MODE_DROP,        // takes all, passes none
    MODE_CUT,         // ends the message with its first piece
    MODE_APPEND_ONLY, // drops the body, the text comes in its place
    MODE_SWALLOW,     // breaks the contract: takes the end and keeps it
    MODE_LATE         // breaks the contract: passes bytes behind the end
};

static const char *const moments[] = {"start", "end", "each", NULL};
enum moment { AT_START, AT_END, AT_EACH };

static const char *const replacements[] = {"no", "same", "twice", "half", "nothing", "text", NULL};
enum replacement {
    REPLACE_NO,
    REPLACE_SAME, // by what was read
    REPLACE_TWICE,
    REPLACE_HALF,
    REPLACE_NOTHING, // by no bytes
    REPLACE_TEXT
};

struct read_conf {
    bool is_wanted;
    uint32_t pause_ms;
    size_t len, every;         // SIZE_MAX: as they come, without a pause
    uint64_t till, fail_after; // UINT64_MAX: to the end, never
};

struct field {
    struct moon_slice name, value;
};

struct head_conf {
    uint32_t wait_ms, block_ms;
    enum verdict verdict;
    uint16_t status;
    struct moon_slice body;
    struct read_conf read;
    enum replacement replacement;
    struct moon_slice text;
    struct field *set, *add, *del;
    uint32_t set_count, add_count, del_count;
};

struct body_conf {
    uint32_t wait_ms;
    enum moment at;
    enum mode mode;
    size_t len;
    uint64_t fail_after, abort_after; // UINT64_MAX: never
    struct moon_slice append;
};

struct conf {
    struct moon_slice name;
    struct head_conf heads[HEAD_HOOK_COUNT];
    struct body_conf bodies[2];
};

#define ANY_TABLE(key)                                               \
    {                                                                \
        .name = key, .types = MOON_TYPE_TABLE, .expected = "a table" \
    }
#define TABLE(key, schema)                                                               \
    {                                                                                    \
        .name = key, .types = MOON_TYPE_TABLE, .table = &(schema), .expected = "a table" \
    }
#define NUMBER(key)                                                                           \
    {                                                                                         \
        .name = key, .types = MOON_TYPE_NUMBER, .min = 0, .max = 1e12, .expected = "a number" \
    }
#define CHOICE(key, list)                                                                 \
    {                                                                                     \
        .name = key, .types = MOON_TYPE_STRING, .choices = (list), .expected = "a choice" \
    }
#define STRING(key)                                                    \
    {                                                                  \
        .name = key, .types = MOON_TYPE_STRING, .expected = "a string" \
    }

static const struct moon_schema_key read_keys[] = {
    NUMBER("len"),  NUMBER("pause"),      NUMBER("every"),
    NUMBER("till"), NUMBER("fail_after"), {.name = NULL},
};
static const struct moon_schema read_schema = {read_keys, NULL, NULL};

static const struct moon_schema_key head_keys[] = {
    NUMBER("wait"),
    NUMBER("block"),
    CHOICE("verdict", verdicts),
    NUMBER("status"),
    STRING("body"),
    ANY_TABLE("set"),
    ANY_TABLE("add"),
    ANY_TABLE("del"),
    TABLE("read", read_schema),
    STRING("text"),
    CHOICE("replace", replacements),
    {.name = NULL},
};
static const struct moon_schema head_schema = {head_keys, NULL, NULL};

static const struct moon_schema_key body_keys[] = {
    NUMBER("wait"),       CHOICE("at", moments), CHOICE("mode", modes), NUMBER("len"),
    NUMBER("fail_after"), NUMBER("abort_after"), STRING("append"),      {.name = NULL},
};
static const struct moon_schema body_schema = {body_keys, NULL, NULL};

static const struct moon_schema_key conf_keys[] = {
    STRING("name"),
    TABLE("rewrite", head_schema),
    TABLE("access", head_schema),
    TABLE("header_filter", head_schema),
    TABLE("log", head_schema),
    TABLE("request_body", body_schema),
    TABLE("response_body", body_schema),
    {.name = NULL},
};
static const struct moon_schema conf_schema = {conf_keys, NULL, NULL};

static struct moon_slice copy(struct moon_slice s)
{
    return (struct moon_slice){strndup(s.ptr, s.len), s.len};
}

static int choice(const struct moon_value *table, const char *key, const char *const *list)
{
    struct moon_slice name = moon_value_string(table, key, moon_slice_from(list[0]));
    int i = 0;
    while (list[i] && !moon_slice_equal(moon_slice_from(list[i]), name))
        i++;
    return i;
}

// { name = value } or, for `del`, { name, name }.
static struct field *read_fields(const struct moon_value *table, const char *key, uint32_t *count)
{
    const struct moon_value *list = moon_value_get(table, key);
    *count = list ? list->table.entry_count + list->table.item_count : 0;
    struct field *fields = calloc(*count + 1, sizeof *fields);
    for (uint32_t i = 0; i < *count; i++) {
        bool is_entry = i < list->table.entry_count;
        const struct moon_entry *entry = list->table.entries + i;
        fields[i].name =
            copy(is_entry ? entry->key : list->table.items[i - list->table.entry_count].string);
        fields[i].value = copy(is_entry ? entry->value.string : MOON_SLICE(""));
    }
    return fields;
}

static uint64_t read_bound(const struct moon_value *value, const char *key)
{
    double bound = moon_value_number(value, key, -1);
    return bound < 0 ? UINT64_MAX : (uint64_t)bound;
}

static void read_read(const struct moon_value *value, struct read_conf *read)
{
    read->is_wanted = value != NULL;
    read->pause_ms = (uint32_t)(moon_value_number(value, "pause", 0) * 1000);
    read->len = (size_t)moon_value_number(value, "len", 1e12);
    read->every = (size_t)moon_value_number(value, "every", 1e12);
    read->till = read_bound(value, "till");
    read->fail_after = read_bound(value, "fail_after");
}

static void read_head(const struct moon_value *value, struct head_conf *head)
{
    head->wait_ms = (uint32_t)(moon_value_number(value, "wait", 0) * 1000);
    head->block_ms = (uint32_t)(moon_value_number(value, "block", 0) * 1000);
    head->verdict = (enum verdict)choice(value, "verdict", verdicts);
    head->status = (uint16_t)moon_value_number(value, "status", 403);
    head->body = copy(moon_value_string(value, "body", MOON_SLICE("refused\n")));
    read_read(moon_value_get(value, "read"), &head->read);
    head->replacement = (enum replacement)choice(value, "replace", replacements);
    head->text = copy(moon_value_string(value, "text", MOON_SLICE("")));
    head->set = read_fields(value, "set", &head->set_count);
    head->add = read_fields(value, "add", &head->add_count);
    head->del = read_fields(value, "del", &head->del_count);
}

static void read_body(const struct moon_value *value, struct body_conf *body)
{
    body->wait_ms = (uint32_t)(moon_value_number(value, "wait", 0) * 1000);
    body->at = (enum moment)choice(value, "at", moments);
    body->mode = (enum mode)choice(value, "mode", modes);
    body->len = (size_t)moon_value_number(value, "len", 1048576);
    body->fail_after = read_bound(value, "fail_after");
    body->abort_after = read_bound(value, "abort_after");
    body->append = copy(moon_value_string(value, "append", MOON_SLICE("")));
}

static int compile(const struct moon_filter_compile *at, const struct moon_value *value, void **out)
{
    (void)at;
    struct conf *conf = calloc(1, sizeof *conf);
    conf->name = copy(moon_value_string(value, "name", MOON_SLICE("test")));
    for (int i = 0; i < HEAD_HOOK_COUNT; i++)
        read_head(moon_value_get(value, hook_names[i]), &conf->heads[i]);
    for (int i = 0; i < 2; i++)
        read_body(moon_value_get(value, hook_names[HOOK_REQUEST_BODY + i]), &conf->bodies[i]);
    *out = conf;
    return 0;
}

static void free_fields(struct field *fields, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        free((void *)fields[i].name.ptr);
        free((void *)fields[i].value.ptr);
    }
    free(fields);
}

static void unref(void *pointer)
{
    struct conf *conf = pointer;
    for (int i = 0; i < HEAD_HOOK_COUNT; i++) {
        struct head_conf *head = &conf->heads[i];
        free((void *)head->body.ptr);
        free((void *)head->text.ptr);
        free_fields(head->set, head->set_count);
        free_fields(head->add, head->add_count);
        free_fields(head->del, head->del_count);
    }
    free((void *)conf->bodies[0].append.ptr);
    free((void *)conf->bodies[1].append.ptr);
    free((void *)conf->name.ptr);
    free(conf);
}

// ---- what it tells

static struct {
    atomic_uint waits, resumed, cancelled, live, errors, resumes;
} counts;

static void say(const struct conf *conf, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void say(const struct conf *conf, const char *format, ...)
{
    char line[256];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    dprintf(STDERR_FILENO, "test-filter info %.*s %s\n", MOON_SLICE_ARG(conf->name), line);
}

static void complain(const struct conf *conf, const char *promise, enum hook hook)
{
    atomic_fetch_add(&counts.errors, 1);
    dprintf(STDERR_FILENO, "test-filter error %.*s: %s in %s\n", MOON_SLICE_ARG(conf->name),
            promise, hook_names[hook]);
}

void test_filters_print(void)
{
    unsigned waits = atomic_load(&counts.waits), live = atomic_load(&counts.live);
    if (waits || live || atomic_load(&counts.errors))
        dprintf(STDERR_FILENO,
                "test-filter info in all: %u waits, %u went on, %u cancelled, %u live, %u errors\n",
                waits, atomic_load(&counts.resumed), atomic_load(&counts.cancelled), live,
                atomic_load(&counts.errors));
}

// ---- state of one exchange

enum wait_step { WAIT_NOT_YET, WAIT_ARMED, WAIT_FIRED, WAIT_OVER };

struct state;

struct wait {
    struct moon_timer timer;
    struct state *state;
    enum hook hook;
    enum wait_step step;
    unsigned resumes; // of all flows when it began: nobody called resume while this stands still
};

struct body {
    char *held; // malloc'd
    size_t held_len, held_at;
    uint64_t seen_len; // taken
    size_t append_at;
    // what was refused last must come again
    char refused[REFUSED_LEN];
    size_t refused_len;
};

enum intake_step { INTAKE_NOT_YET, INTAKE_ON, INTAKE_REFUSED, INTAKE_OVER };

// What a reader has got in one head hook.
struct intake {
    struct moon_timer timer; // of a pause
    struct state *state;
    enum hook hook;
    enum intake_step step;
    char *bytes; // malloc'd
    size_t len, paused_len;
    unsigned resumes;
};

struct state {
    const struct conf *conf;
    struct moon_flow *flow;
    struct wait waits[HOOK_COUNT];
    struct body bodies[2];
    struct intake intakes[2]; // of rewrite and access
    bool is_logged, is_in_hook;
};

static void on_free(void *arg)
{
    struct state *state = arg;
    for (int i = 0; i < HOOK_COUNT; i++)
        if (state->waits[i].step == WAIT_ARMED || state->waits[i].step == WAIT_FIRED)
            complain(state->conf, "freed while it waits", (enum hook)i);
    for (int i = 0; i < 2; i++) {
        if (state->intakes[i].step == INTAKE_ON || state->intakes[i].step == INTAKE_REFUSED)
            complain(state->conf, "freed while it reads", (enum hook)i);
        free(state->intakes[i].bytes);
        free(state->bodies[i].held);
    }
    atomic_fetch_sub(&counts.live, 1);
}

static void on_timer(struct moon_timer *timer)
{
    struct wait *wait = MOON_CONTAINER(timer, struct wait, timer);
    wait->step = WAIT_FIRED;
    atomic_fetch_add(&counts.resumes, 1);
    wait->state->flow->ops->resume(wait->state->flow);
}

static void on_pause_over(struct moon_timer *timer);

// At the start of every hook.
static void enter(struct state *state, struct moon_flow *flow, const struct conf *conf,
                  enum hook hook)
{
    if (state->is_logged && hook != HOOK_LOG)
        complain(conf, "called after log", hook);
    if (state->conf)
        return;
    atomic_fetch_add(&counts.live, 1);
    state->conf = conf;
    state->flow = flow;
    for (int i = 0; i < HOOK_COUNT; i++) {
        state->waits[i].state = state;
        state->waits[i].hook = (enum hook)i;
        state->waits[i].timer.fn = on_timer;
    }
    for (int i = 0; i < 2; i++) {
        state->intakes[i].state = state;
        state->intakes[i].hook = (enum hook)i;
        state->intakes[i].timer.fn = on_pause_over;
    }
    moon_arena_on_free(flow->arena, on_free, state);
}

static bool must_wait(struct state *state, enum hook hook, uint32_t ms)
{
    struct wait *wait = &state->waits[hook];
    switch (wait->step) {
    case WAIT_NOT_YET:
        if (ms == 0)
            return false;
        wait->step = WAIT_ARMED;
        wait->resumes = atomic_load(&counts.resumes);
        atomic_fetch_add(&counts.waits, 1);
        moon_loop_timer_add(state->flow->loop, &wait->timer, ms);
        say(state->conf, "waits in %s", hook_names[hook]);
        return true;
    case WAIT_ARMED:
        if (wait->resumes == atomic_load(&counts.resumes))
            complain(state->conf, "called while it waits, without a resume", hook);
        return true;
    case WAIT_FIRED:
        wait->step = WAIT_OVER;
        atomic_fetch_add(&counts.resumed, 1);
        say(state->conf, "goes on in %s", hook_names[hook]);
        return false;
    case WAIT_OVER:
        return false;
    }
    return false;
}

// It may find nothing that waits here: a body hook that hands a WAIT of the filter behind it on is told, too.
static void cancel(struct moon_flow *flow, void *conf, void *pointer)
{
    struct state *state = pointer;
    for (int i = 0; i < HOOK_COUNT; i++) {
        struct wait *wait = &state->waits[i];
        if (wait->step != WAIT_ARMED && wait->step != WAIT_FIRED)
            continue;
        moon_loop_timer_del(flow->loop, &wait->timer);
        wait->step = WAIT_OVER;
        atomic_fetch_add(&counts.cancelled, 1);
        say(conf, "cancelled in %s", hook_names[i]);
    }
    for (int i = 0; i < 2; i++) {
        struct intake *intake = &state->intakes[i];
        if (intake->step != INTAKE_ON && intake->step != INTAKE_REFUSED)
            continue;
        moon_loop_timer_del(flow->loop, &intake->timer);
        intake->step = INTAKE_OVER;
        atomic_fetch_add(&counts.cancelled, 1);
        say(conf, "cancelled after %zu bytes in %s", intake->len, hook_names[i]);
    }
}

// ---- reading

static void end_reading(struct intake *intake)
{
    struct moon_flow *flow = intake->state->flow;
    intake->step = INTAKE_OVER;
    atomic_fetch_add(&counts.resumes, 1);
    atomic_fetch_add(&counts.resumed, 1);
    say(intake->state->conf, "has read %zu bytes in %s", intake->len, hook_names[intake->hook]);
    flow->ops->resume(flow);
}

static ssize_t read_some(void *owner, struct moon_slice bytes, bool end)
{
    struct intake *intake = owner;
    struct state *state = intake->state;
    const struct read_conf *conf = &state->conf->heads[intake->hook].read;
    if (state->is_in_hook)
        complain(state->conf, "the reader is called under the hook", intake->hook);
    if (intake->step != INTAKE_ON)
        complain(state->conf, "the reader is called out of turn", intake->hook);
    if (end == (bytes.len > 0))
        complain(state->conf, "an end with bytes, or neither", intake->hook);
    if (intake->len > conf->fail_after)
        return MOON_BODY_FAIL;
    if (conf->pause_ms && (end || intake->len >= intake->paused_len + conf->every)) {
        if (intake->paused_len != intake->len + 1) { // once at the end, too
            intake->paused_len = end ? intake->len + 1 : intake->len;
            intake->step = INTAKE_REFUSED;
            moon_loop_timer_add(state->flow->loop, &intake->timer, conf->pause_ms);
            return MOON_BODY_WAIT;
        }
    }
    if (bytes.len > conf->len)
        bytes.len = conf->len;
    intake->bytes = realloc(intake->bytes, intake->len + bytes.len + 1);
    memcpy(intake->bytes + intake->len, bytes.ptr, bytes.len);
    intake->len += bytes.len;
    if (!end && intake->len >= conf->till)
        state->flow->ops->read_request(state->flow, NULL);
    if (end || intake->len >= conf->till)
        end_reading(intake);
    return (ssize_t)bytes.len;
}

static void ask_to_read(struct intake *intake)
{
    struct moon_flow *flow = intake->state->flow;
    struct moon_body_reader reader = {read_some, intake};
    bool was_in_hook = intake->state->is_in_hook;
    intake->step = INTAKE_ON;
    intake->state->is_in_hook = true; // nor under this call
    flow->ops->read_request(flow, &reader);
    intake->state->is_in_hook = was_in_hook;
}

static void on_pause_over(struct moon_timer *timer)
{
    ask_to_read(MOON_CONTAINER(timer, struct intake, timer));
}

static bool must_read(struct state *state, enum hook hook)
{
    struct intake *intake = &state->intakes[hook];
    switch (intake->step) {
    case INTAKE_NOT_YET:
        atomic_fetch_add(&counts.waits, 1);
        intake->resumes = atomic_load(&counts.resumes);
        say(state->conf, "reads in %s", hook_names[hook]);
        ask_to_read(intake);
        return true;
    case INTAKE_ON:
    case INTAKE_REFUSED:
        if (intake->resumes == atomic_load(&counts.resumes))
            complain(state->conf, "called while it reads, without a resume", hook);
        return true;
    case INTAKE_OVER:
        return false;
    }
    return false;
}

static void replace(struct state *state, const struct head_conf *conf, enum hook hook)
{
    struct moon_flow *flow = state->flow;
    struct intake *intake = &state->intakes[hook];
    struct moon_slice bytes = {intake->bytes, intake->len};
    switch (conf->replacement) {
    case REPLACE_NO:
        return;
    case REPLACE_SAME:
        break;
    case REPLACE_TWICE:
        intake->bytes = realloc(intake->bytes, 2 * intake->len + 1);
        memcpy(intake->bytes + intake->len, intake->bytes, intake->len);
        bytes = (struct moon_slice){intake->bytes, 2 * intake->len};
        break;
    case REPLACE_HALF:
        bytes.len /= 2;
        break;
    case REPLACE_NOTHING:
        bytes.len = 0;
        break;
    case REPLACE_TEXT:
        bytes = conf->text;
        break;
    }
    flow->ops->replace_request(flow, bytes);
}

// ---- head hooks

static void edit(struct moon_flow *flow, const struct head_conf *conf, struct moon_headers *headers)
{
    for (uint32_t i = 0; i < conf->del_count; i++)
        moon_headers_del(headers, conf->del[i].name);
    for (uint32_t i = 0; i < conf->set_count; i++)
        moon_headers_set(headers, flow->arena, conf->set[i].name, conf->set[i].value);
    for (uint32_t i = 0; i < conf->add_count; i++)
        moon_headers_add(headers, flow->arena, conf->add[i].name, conf->add[i].value);
}

static enum moon_verdict judge_head(struct moon_flow *flow, const struct conf *conf,
                                    struct state *state, enum hook hook)
{
    const struct head_conf *head = &conf->heads[hook];
    enter(state, flow, conf, hook);
    if (must_wait(state, hook, head->wait_ms))
        return MOON_WAIT;
    if (head->block_ms) { // what no filter may: the worker serves nobody meanwhile
        say(conf, "blocks in %s", hook_names[hook]);
        nanosleep(&(struct timespec){head->block_ms / 1000, head->block_ms % 1000 * 1000000L},
                  NULL);
    }
    bool is_early = hook == HOOK_REWRITE || hook == HOOK_ACCESS;
    if (is_early && head->read.is_wanted && must_read(state, hook))
        return MOON_WAIT;
    if (is_early)
        replace(state, head, hook);
    if (hook != HOOK_LOG)
        edit(flow, head,
             hook == HOOK_HEADER_FILTER ? &flow->response->headers : &flow->request->headers);
    switch (head->verdict) {
    case VERDICT_NEXT:
        return MOON_NEXT;
    case VERDICT_ANSWER:
        flow->ops->respond(flow, head->status, MOON_SLICE("text/plain"), head->body);
        return MOON_DONE;
    case VERDICT_DONE:
        return MOON_DONE;
    case VERDICT_ABORT:
        flow->ops->abort(flow);
        return MOON_FAIL;
    case VERDICT_FAIL:
        return MOON_FAIL;
    }
    return MOON_FAIL;
}

static enum moon_verdict run_head(struct moon_flow *flow, const struct conf *conf,
                                  struct state *state, enum hook hook)
{
    state->is_in_hook = true;
    enum moon_verdict verdict = judge_head(flow, conf, state, hook);
    state->is_in_hook = false;
    return verdict;
}

static enum moon_verdict rewrite(struct moon_flow *flow, void *conf, void *state)
{
    return run_head(flow, conf, state, HOOK_REWRITE);
}

static enum moon_verdict access_phase(struct moon_flow *flow, void *conf, void *state)
{
    return run_head(flow, conf, state, HOOK_ACCESS);
}

static enum moon_verdict header_filter(struct moon_flow *flow, void *conf, void *state)
{
    return run_head(flow, conf, state, HOOK_HEADER_FILTER);
}

static void tell_way(struct moon_flow *flow, const struct conf *conf, const struct state *state)
{
    struct moon_address endpoint;
    char text[MOON_ADDRESS_TEXT_LEN];
    struct moon_slice route = flow->ops->route(flow), upstream = flow->ops->upstream(flow);
    flow->ops->endpoint(flow, &endpoint);
    size_t len = endpoint.family ? moon_address_format(&endpoint, text) : 0;
    say(conf, "saw bodies of %llu and %llu bytes", (unsigned long long)state->bodies[0].seen_len,
        (unsigned long long)state->bodies[1].seen_len);
    say(conf, "went by worker %u, route \"%.*s\", upstream \"%.*s\", endpoint \"%.*s\"",
        flow->worker, MOON_SLICE_ARG(route), MOON_SLICE_ARG(upstream), (int)len, text);
}

static enum moon_verdict log_phase(struct moon_flow *flow, void *conf, void *pointer)
{
    struct state *state = pointer;
    enum moon_verdict verdict = run_head(flow, conf, state, HOOK_LOG);
    if (verdict == MOON_WAIT)
        return verdict;
    if (state->is_logged)
        complain(conf, "called twice", HOOK_LOG);
    state->is_logged = true;
    say(conf, "logs %u %s %llu %llu", flow->response->status, flow->is_complete ? "whole" : "cut",
        (unsigned long long)flow->request_body_len, (unsigned long long)flow->response_body_len);
    tell_way(flow, conf, state);
    return verdict;
}

// ---- body hooks

struct turn {
    struct moon_flow *flow;
    const struct body_conf *conf;
    struct body *body;
    enum moon_direction direction;
};

static ssize_t pass(const struct turn *turn, struct moon_slice bytes)
{
    return turn->flow->ops->pass(turn->flow, turn->direction, bytes, false);
}

static ssize_t pass_end(const struct turn *turn)
{
    return turn->flow->ops->pass(turn->flow, turn->direction, MOON_SLICE(""), true);
}

static struct moon_slice first(struct moon_slice bytes, size_t len)
{
    return (struct moon_slice){bytes.ptr, bytes.len < len ? bytes.len : len};
}

static ssize_t pass_pieces(const struct turn *turn, struct moon_slice bytes)
{
    size_t taken = 0;
    while (taken < bytes.len) {
        ssize_t n = pass(turn, first(moon_slice_skip(bytes, taken), turn->conf->len));
        if (n < 0)
            return taken && n != MOON_BODY_FAIL ? (ssize_t)taken : n;
        taken += (size_t)n;
    }
    return (ssize_t)taken;
}

static ssize_t pass_upper(const struct turn *turn, struct moon_slice bytes)
{
    char text[4096];
    struct moon_slice piece = {text, bytes.len < sizeof text ? bytes.len : sizeof text};
    for (size_t i = 0; i < piece.len; i++)
        text[i] = (char)toupper((unsigned char)bytes.ptr[i]);
    return pass(turn, piece);
}

static void keep(struct body *body, struct moon_slice bytes)
{
    body->held = realloc(body->held, body->held_len + bytes.len + 1);
    memcpy(body->held + body->held_len, bytes.ptr, bytes.len);
    body->held_len += bytes.len;
}

// 0 when nothing is kept any more.
static ssize_t release(const struct turn *turn)
{
    struct body *body = turn->body;
    while (body->held_at < body->held_len) {
        ssize_t n = pass(
            turn, (struct moon_slice){body->held + body->held_at, body->held_len - body->held_at});
        if (n < 0)
            return n;
        body->held_at += (size_t)n;
    }
    return 0;
}

static ssize_t hold(const struct turn *turn, struct moon_slice bytes)
{
    struct body *body = turn->body;
    bool is_all = turn->conf->mode == MODE_HOLD;
    if (is_all && body->held_len + bytes.len > turn->conf->len)
        return MOON_BODY_FAIL;
    if (!is_all && body->held_len >= turn->conf->len) {
        ssize_t n = release(turn);
        return n < 0 ? n : pass(turn, bytes);
    }
    keep(body, bytes);
    return (ssize_t)bytes.len;
}

static ssize_t take_bytes(const struct turn *turn, struct moon_slice bytes)
{
    ssize_t n;
    switch (turn->conf->mode) {
    case MODE_PASS:
    case MODE_SWALLOW:
        return pass(turn, bytes);
    case MODE_PIECES:
        return pass_pieces(turn, bytes);
    case MODE_PARTIAL:
        return pass(turn, first(bytes, turn->conf->len));
    case MODE_UPPER:
        return pass_upper(turn, bytes);
    case MODE_HOLD:
    case MODE_HOLD_UNTIL:
        return hold(turn, bytes);
    case MODE_DROP:
    case MODE_APPEND_ONLY:
        return (ssize_t)bytes.len;
    case MODE_CUT:
        n = pass_end(turn);
        return n < 0 ? n : (ssize_t)bytes.len;
    case MODE_LATE:
        n = pass_end(turn);
        return n < 0 ? n : pass(turn, bytes);
    }
    return MOON_BODY_FAIL;
}

static ssize_t take_end(const struct turn *turn)
{
    if (turn->conf->mode == MODE_SWALLOW)
        return 0;
    ssize_t n = release(turn);
    while (n >= 0 && turn->body->append_at < turn->conf->append.len) {
        n = pass(turn, moon_slice_skip(turn->conf->append, turn->body->append_at));
        turn->body->append_at += n > 0 ? (size_t)n : 0;
    }
    return n < 0 ? n : pass_end(turn);
}

// What was refused comes again.
static void check_refused(const struct conf *conf, struct body *body, struct moon_slice bytes,
                          enum hook hook)
{
    size_t len = body->refused_len < REFUSED_LEN ? body->refused_len : REFUSED_LEN;
    if (bytes.len < body->refused_len || memcmp(bytes.ptr, body->refused, len) != 0)
        complain(conf, "other bytes than those it refused", hook);
    body->refused_len = 0;
}

static bool is_due(const struct body_conf *conf, struct state *state, enum hook hook, bool end)
{
    struct wait *wait = &state->waits[hook];
    if (conf->at == AT_EACH && wait->step == WAIT_OVER && !end)
        wait->step = WAIT_NOT_YET;
    return conf->at != AT_END || end || wait->step != WAIT_NOT_YET;
}

static ssize_t run_body(struct moon_flow *flow, const struct conf *conf, struct state *state,
                        enum moon_direction direction, struct moon_slice bytes, bool end)
{
    enum hook hook = direction == MOON_REQUEST ? HOOK_REQUEST_BODY : HOOK_RESPONSE_BODY;
    const struct body_conf *want = &conf->bodies[direction];
    struct body *body = &state->bodies[direction];
    struct turn turn = {flow, want, body, direction};
    enter(state, flow, conf, hook);
    if (end == (bytes.len > 0))
        complain(conf, "an end with bytes, or neither", hook);
    check_refused(conf, body, bytes, hook);
    ssize_t n = MOON_BODY_WAIT;
    if (!is_due(want, state, hook, end) || !must_wait(state, hook, want->wait_ms))
        n = end ? take_end(&turn) : take_bytes(&turn, bytes);
    if (n > 0)
        body->seen_len += (size_t)n;
    if (n < 0) {
        body->refused_len = bytes.len;
        memcpy(body->refused, bytes.ptr, first(bytes, REFUSED_LEN).len);
    }
    if (body->seen_len > want->abort_after) {
        flow->ops->abort(flow);
        return MOON_BODY_FAIL;
    }
    return body->seen_len > want->fail_after ? MOON_BODY_FAIL : n;
}

static ssize_t request_body(struct moon_flow *flow, void *conf, void *state,
                            struct moon_slice bytes, bool end)
{
    return run_body(flow, conf, state, MOON_REQUEST, bytes, end);
}

static ssize_t response_body(struct moon_flow *flow, void *conf, void *state,
                             struct moon_slice bytes, bool end)
{
    return run_body(flow, conf, state, MOON_RESPONSE, bytes, end);
}

#define HEADS                                                                                      \
    .schema = &conf_schema, .state_len = sizeof(struct state), .compile = compile, .unref = unref, \
    .rewrite = rewrite, .access = access_phase, .header_filter = header_filter, .log = log_phase,  \
    .cancel = cancel

static const struct moon_filter_type test_heads = {.name = "test-heads", HEADS};
static const struct moon_filter_type test_may = {.name = "test-may", HEADS, .may_answer = true};
static const struct moon_filter_type test_all = {
    .name = "test", HEADS, .request_body = request_body, .response_body = response_body};

const struct moon_filter_type *const test_filters[] = {&test_all, &test_heads, &test_may, NULL};
