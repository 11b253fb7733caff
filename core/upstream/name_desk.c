// See name_desk.h.
//
//   mail -> inquiry: two questions to the resolver -> both answered -> merged into the question -> posted back, inquiry freed
//                         ^------ the resolver was replaced meanwhile
#include "upstream/name_desk.h"

#include "base/err.h"
#include "base/list.h"
#include "conf/settings.h"
#include "io/loop.h"
#include "io/resolver.h"
#include "obs/log.h"

#include <stdlib.h>
#include <string.h>

enum { FAMILY_COUNT = 2, HALF_TTL_S = 5 }; // of an answer for one family when the other failed

static const enum moon_family families[FAMILY_COUNT] = {MOON_FAMILY_IPV4, MOON_FAMILY_IPV6};

struct half {
    struct inquiry *inquiry;
    struct moon_address addresses[MOON_NAME_ADDRESS_MAX_COUNT];
    size_t count;
    uint32_t ttl_s;
    int err;
};

struct inquiry {
    struct moon_name_desk *desk;
    struct moon_name_question *question;
    struct half halves[FAMILY_COUNT];
    unsigned open_count;
};

struct moon_name_desk {
    struct moon_loop *loop;
    const struct moon_log *log;
    struct moon_mailbox *mailbox;
    struct moon_snapshot *snapshot;
    struct moon_resolver *resolver; // made with the first question
    bool is_closing;
};

static void ask(struct inquiry *inquiry);

// What both halves say together: addresses of either are an answer; else a failure counts for more than "no such name".
static void merge(struct inquiry *inquiry)
{
    struct moon_name_question *question = inquiry->question;
    size_t count = inquiry->halves[0].count + inquiry->halves[1].count;
    question->err = MOON_ENAME;
    question->ttl_s = UINT32_MAX;
    question->count = 0;
    question->addresses = calloc(count + 1, sizeof *question->addresses);
    if (!question->addresses)
        abort();
    for (int i = 0; i < FAMILY_COUNT; i++) {
        const struct half *half = &inquiry->halves[i];
        bool is_failure = half->err && half->err != MOON_ENAME;
        uint32_t ttl_s = is_failure ? HALF_TTL_S : half->err ? UINT32_MAX : half->ttl_s;
        memcpy(question->addresses + question->count, half->addresses,
               half->count * sizeof *half->addresses);
        question->count += half->count;
        question->ttl_s = ttl_s < question->ttl_s ? ttl_s : question->ttl_s;
        if (is_failure)
            question->err = half->err;
    }
    if (question->count)
        question->err = 0;
}

static void all_answered(struct inquiry *inquiry)
{
    struct moon_name_desk *desk = inquiry->desk;
    struct moon_name_question *question = inquiry->question;
    if (desk->is_closing) {
        free(inquiry);
        return;
    }
    for (int i = 0; i < FAMILY_COUNT; i++) {
        if (inquiry->halves[i].err != MOON_ECANCELED)
            continue;
        ask(inquiry);
        return;
    }
    merge(inquiry);
    moon_log_debug(desk->log, "\"%.*s\" has %zu addresses: %s", MOON_SLICE_ARG(question->host),
                   question->count, moon_err_text(question->err));
    free(inquiry);
    moon_mailbox_post(question->answer_to, &question->message);
}

static void on_resolved(void *owner, const struct moon_resolved *resolved)
{
    struct half *half = owner;
    size_t count = resolved->err ? 0 : resolved->count;
    half->err = resolved->err;
    half->ttl_s = resolved->ttl_s;
    half->count = count < MOON_NAME_ADDRESS_MAX_COUNT ? count : MOON_NAME_ADDRESS_MAX_COUNT;
    if (half->count)
        memcpy(half->addresses, resolved->addresses, half->count * sizeof *half->addresses);
    if (--half->inquiry->open_count == 0)
        all_answered(half->inquiry);
}

static struct moon_resolver *resolver_of(struct moon_name_desk *desk)
{
    const struct moon_settings *settings = moon_snapshot_settings(desk->snapshot);
    if (!desk->resolver)
        desk->resolver = moon_resolver_new(
            desk->loop,
            &(struct moon_resolver_options){.servers = settings->resolver.servers,
                                            .server_count = settings->resolver.server_count,
                                            .timeout_ms = settings->resolver.timeout_ms});
    return desk->resolver;
}

static void ask(struct inquiry *inquiry)
{
    struct moon_resolver *resolver = resolver_of(inquiry->desk);
    struct moon_slice host = inquiry->question->host;
    inquiry->open_count =
        FAMILY_COUNT; // answers may come at once; with the last one the inquiry is gone
    for (int i = 0; i < FAMILY_COUNT; i++) {
        struct half *half = &inquiry->halves[i];
        half->inquiry = inquiry;
        if (resolver)
            moon_resolve(resolver, host, families[i], on_resolved, half);
        else
            on_resolved(half, &(struct moon_resolved){.err = MOON_ENAME});
    }
}

static void on_message(void *owner, struct moon_message *message)
{
    struct inquiry *inquiry = calloc(1, sizeof *inquiry);
    if (!inquiry)
        abort();
    inquiry->desk = owner;
    inquiry->question = MOON_CONTAINER(message, struct moon_name_question, message);
    ask(inquiry);
}

struct moon_name_desk *moon_name_desk_new(struct moon_loop *loop, const struct moon_log *log)
{
    struct moon_name_desk *desk = calloc(1, sizeof *desk);
    if (!desk)
        abort();
    desk->loop = loop;
    desk->log = log;
    desk->mailbox = moon_mailbox_new(loop, on_message, desk);
    return desk;
}

void moon_name_desk_use(struct moon_name_desk *desk, struct moon_snapshot *snapshot)
{
    struct moon_snapshot *before = desk->snapshot;
    struct moon_resolver *resolver = desk->resolver;
    desk->snapshot = moon_snapshot_ref(snapshot);
    desk->resolver = NULL;
    moon_resolver_free(resolver); // what it still had to answer is asked again, of another
    moon_snapshot_unref(before);
}

void moon_name_desk_free(struct moon_name_desk *desk)
{
    if (!desk)
        return;
    desk->is_closing = true;
    moon_resolver_free(desk->resolver);
    moon_mailbox_free(desk->mailbox);
    moon_snapshot_unref(desk->snapshot);
    free(desk);
}

void moon_name_desk_ask(struct moon_name_desk *desk, struct moon_name_question *question)
{
    moon_mailbox_post(desk->mailbox, &question->message);
}
