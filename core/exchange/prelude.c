// See prelude.h. Filters are called from a task of its own alone.
#include "exchange/prelude.h"

#include "conf/settings.h"
#include "filter/chain.h"
#include "filter/preread.h"
#include "io/loop.h"
#include "link/resources.h"

#include <stdlib.h>
#include <string.h>

struct moon_prelude {
    struct moon_preread preread; // first
    struct moon_prelude_args args;
    struct moon_task task;
    struct moon_timer timer;
    uint16_t at; // the filter that has it
    char texts[];
};

static struct moon_prelude *prelude_of(struct moon_preread *preread)
{
    return (struct moon_prelude *)preread;
}

static ssize_t on_peek(struct moon_preread *preread, char *to, size_t len)
{
    return moon_stream_peek(prelude_of(preread)->args.stream, to, len);
}

static void on_resume(struct moon_preread *preread)
{
    struct moon_prelude *prelude = prelude_of(preread);
    moon_loop_defer(prelude->args.res->loop, &prelude->task);
}

static const struct moon_preread_ops preread_ops = {.peek = on_peek, .resume = on_resume};

static void finish(struct moon_prelude *prelude, enum moon_verdict verdict)
{
    struct moon_prelude_args args = prelude->args;
    char *upstream = prelude->preread.upstream;
    moon_task_cancel(&prelude->task); // a filter may have asked for another call
    moon_loop_timer_del(args.res->loop, &prelude->timer);
    free(prelude);
    args.done(args.owner, verdict, moon_slice_from(upstream));
    free(upstream);
}

static void prelude_task(struct moon_task *task)
{
    struct moon_prelude *prelude = MOON_CONTAINER(task, struct moon_prelude, task);
    const struct moon_chain *chain = prelude->args.chain;
    enum moon_verdict verdict = MOON_NEXT;
    while (prelude->at < chain->count && verdict == MOON_NEXT) {
        const struct moon_filter *filter = &chain->filters[prelude->at];
        if (filter->type->preread)
            verdict = filter->type->preread(&prelude->preread, filter->conf);
        prelude->at += verdict == MOON_NEXT;
    }
    if (verdict != MOON_WAIT)
        finish(prelude, verdict);
}

static void on_timer(struct moon_timer *timer)
{
    struct moon_prelude *prelude = MOON_CONTAINER(timer, struct moon_prelude, timer);
    if (prelude->preread.cancel)
        prelude->preread.cancel(&prelude->preread);
    finish(prelude, MOON_WAIT);
}

void moon_prelude_ready(struct moon_prelude *prelude, unsigned ready)
{
    prelude->preread.has_ended |= (ready & MOON_READY_HUP) != 0;
    if (prelude->preread.guest)
        moon_loop_defer(prelude->args.res->loop, &prelude->task);
}

struct moon_prelude *moon_prelude_new(const struct moon_prelude_args *args)
{
    size_t sni_len = args->sni.len, alpn_len = args->alpn.len;
    struct moon_prelude *prelude = calloc(1, sizeof *prelude + sni_len + alpn_len);
    if (!prelude)
        abort();
    if (sni_len)
        memcpy(prelude->texts, args->sni.ptr, sni_len);
    if (alpn_len)
        memcpy(prelude->texts + sni_len, args->alpn.ptr, alpn_len);
    prelude->args = *args;
    prelude->preread = (struct moon_preread){.ops = &preread_ops,
                                             .worker = args->res->worker,
                                             .number = args->number,
                                             .client = args->client,
                                             .destination = args->destination,
                                             .listener = args->listener,
                                             .route = args->route,
                                             .sni = {prelude->texts, sni_len},
                                             .alpn = {prelude->texts + sni_len, alpn_len},
                                             .facts = moon_stream_tls(args->stream),
                                             .is_tls = args->is_tls};
    prelude->task.fn = prelude_task;
    prelude->timer.fn = on_timer;
    moon_loop_timer_add(args->res->loop, &prelude->timer, args->res->settings->timeouts.preread_ms);
    moon_loop_defer(args->res->loop, &prelude->task);
    return prelude;
}

void moon_prelude_free(struct moon_prelude *prelude)
{
    if (!prelude)
        return;
    if (prelude->preread.cancel)
        prelude->preread.cancel(&prelude->preread);
    moon_task_cancel(&prelude->task);
    moon_loop_timer_del(prelude->args.res->loop, &prelude->timer);
    free(prelude->preread.upstream);
    free(prelude);
}
