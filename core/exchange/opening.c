// See opening.h. Filters are called from a task of its own alone.
#include "exchange/opening.h"

#include "filter/chain.h"
#include "filter/preread.h"
#include "io/loop.h"
#include "link/resources.h"

#include <stdlib.h>
#include <string.h>

struct moon_opening {
    struct moon_preread preread; // first
    struct moon_opening_args args;
    struct moon_task task;
    uint16_t at; // the filter that has it
    char texts[];
};

static struct moon_opening *opening_of(struct moon_preread *preread)
{
    return (struct moon_opening *)preread;
}

static ssize_t on_peek(struct moon_preread *preread, char *to, size_t len)
{
    return moon_stream_peek(opening_of(preread)->args.stream, to, len);
}

static void on_resume(struct moon_preread *preread)
{
    struct moon_opening *opening = opening_of(preread);
    moon_loop_defer(opening->args.res->loop, &opening->task);
}

static const struct moon_preread_ops preread_ops = {.peek = on_peek, .resume = on_resume};

static void finish(struct moon_opening *opening, enum moon_verdict verdict)
{
    struct moon_opening_args args = opening->args;
    char *upstream = opening->preread.upstream;
    moon_task_cancel(&opening->task); // a filter may have asked for another call
    free(opening);
    args.done(args.owner, verdict, moon_slice_from(upstream));
    free(upstream);
}

static void opening_task(struct moon_task *task)
{
    struct moon_opening *opening = MOON_CONTAINER(task, struct moon_opening, task);
    const struct moon_chain *chain = opening->args.chain;
    enum moon_verdict verdict = MOON_NEXT;
    while (opening->at < chain->count && verdict == MOON_NEXT) {
        const struct moon_filter *filter = &chain->filters[opening->at];
        if (filter->type->preread)
            verdict = filter->type->preread(&opening->preread, filter->conf);
        opening->at += verdict == MOON_NEXT;
    }
    if (verdict != MOON_WAIT)
        finish(opening, verdict);
}

void moon_opening_ready(struct moon_opening *opening, unsigned ready)
{
    opening->preread.has_ended |= (ready & MOON_READY_HUP) != 0;
    if (opening->preread.guest)
        moon_loop_defer(opening->args.res->loop, &opening->task);
}

struct moon_opening *moon_opening_new(const struct moon_opening_args *args)
{
    size_t sni_len = args->sni.len, alpn_len = args->alpn.len;
    struct moon_opening *opening = calloc(1, sizeof *opening + sni_len + alpn_len);
    if (!opening)
        abort();
    if (sni_len)
        memcpy(opening->texts, args->sni.ptr, sni_len);
    if (alpn_len)
        memcpy(opening->texts + sni_len, args->alpn.ptr, alpn_len);
    opening->args = *args;
    opening->preread = (struct moon_preread){.ops = &preread_ops,
                                             .worker = args->res->worker,
                                             .number = args->number,
                                             .client = args->client,
                                             .listener = args->listener,
                                             .route = args->route,
                                             .sni = {opening->texts, sni_len},
                                             .alpn = {opening->texts + sni_len, alpn_len},
                                             .is_tls = args->is_tls};
    opening->task.fn = opening_task;
    moon_loop_defer(args->res->loop, &opening->task);
    return opening;
}

void moon_opening_free(struct moon_opening *opening)
{
    if (!opening)
        return;
    if (opening->preread.cancel)
        opening->preread.cancel(&opening->preread);
    moon_task_cancel(&opening->task);
    free(opening->preread.upstream);
    free(opening);
}
