// See surveys.h. The rows come as text, so that nothing of a worker is looked at from here.
#include "gateway/surveys.h"

#include "gateway/gateway_priv.h"
#include "io/loop.h"
#include "obs/counters.h"

#include <stdio.h>
#include <stdlib.h>

enum { LIMIT_DEFAULT = 100, LIMIT_MAX = 1000, PATIENCE_MS = 1000 };

struct survey {
    struct moon_list node;
    struct moon_surveys *surveys;
    struct moon_admin_wait *wait; // NULL: told, or forgotten
    struct moon_timer timer;
    size_t limit;
    unsigned part_count, missing_count;
    struct moon_worker_survey parts[]; // one a worker
};

static void survey_free(struct survey *survey)
{
    moon_loop_timer_del(survey->surveys->gateway->control.loop, &survey->timer);
    moon_list_del(&survey->node);
    for (unsigned i = 0; i < survey->part_count; i++)
        free(survey->parts[i].text);
    free(survey);
}

static uint64_t read_count(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit((_Atomic uint64_t *)counter, memory_order_relaxed);
}

// ---- the answer

static void write_worker(const struct survey *survey, unsigned index, FILE *out)
{
    const struct moon_gateway *gateway = survey->surveys->gateway;
    const struct moon_counters *of = moon_worker_counters(gateway->seats[index].worker);
    fprintf(out,
            "%s\n  {\"downstream\":%llu,\"upstream\":%llu,\"upstream_idle\":%llu,"
            "\"tunnels\":%llu,\"exchanges\":%llu}",
            index ? "," : "", (unsigned long long)read_count(&of->connections_live),
            (unsigned long long)read_count(&of->upstream_connections_live),
            (unsigned long long)read_count(&of->upstream_idle),
            (unsigned long long)read_count(&of->tunnels_live),
            (unsigned long long)read_count(&of->exchanges_live));
}

static void write_answer(const struct survey *survey, FILE *out)
{
    const char *comma = "";
    fputs("{\"workers\":[", out);
    for (unsigned i = 0; i < survey->part_count; i++)
        write_worker(survey, i, out);
    fprintf(out, "\n],\"limit\":%zu,\"missing\":[", survey->limit);
    for (unsigned i = 0; i < survey->part_count; i++) {
        if (survey->parts[i].is_back)
            continue;
        fprintf(out, "%s%u", comma, i);
        comma = ",";
    }
    fputs("],\"connections\":[", out);
    comma = "\n";
    for (unsigned i = 0; i < survey->part_count; i++) {
        const struct moon_worker_survey *part = &survey->parts[i];
        if (!part->is_back || part->row_count == 0)
            continue;
        fputs(comma, out);
        fwrite(part->text, 1, part->text_len, out);
        comma = ",\n";
    }
    fputs("\n]}\n", out);
}

static void tell(struct survey *survey)
{
    struct moon_admin_wait *wait = survey->wait;
    char *text = NULL;
    size_t len = 0;
    survey->wait = NULL;
    if (!wait)
        return;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        abort();
    write_answer(survey, out);
    if (fclose(out) != 0)
        abort();
    wait->done(wait, true, text, len);
}

static void on_message(void *owner, struct moon_message *message)
{
    (void)owner;
    struct moon_worker_survey *part = MOON_CONTAINER(message, struct moon_worker_survey, message);
    struct survey *survey = part->owner;
    part->is_back = true;
    if (--survey->missing_count)
        return;
    tell(survey);
    survey_free(survey);
}

// Who is missing has not come back: what it writes is not looked at.
static void on_timer(struct moon_timer *timer)
{
    tell(MOON_CONTAINER(timer, struct survey, timer));
}

// On the worker's thread.
static void on_surveyed(void *owner, struct moon_worker_survey *part)
{
    struct survey *survey = owner;
    moon_mailbox_post(survey->surveys->mailbox, &part->message);
}

static void forget(struct moon_admin_wait *wait)
{
    struct survey *survey = wait->order;
    survey->wait = NULL;
}

// ---- public

static bool read_limit(struct moon_slice query, size_t *limit)
{
    struct moon_slice key = MOON_SLICE("limit=");
    uint64_t value;
    *limit = LIMIT_DEFAULT;
    if (query.len == 0)
        return true;
    if (!moon_slice_starts(query, key) ||
        !moon_slice_to_u64(moon_slice_skip(query, key.len), &value))
        return false;
    *limit = (size_t)value;
    return value >= 1 && value <= LIMIT_MAX;
}

bool moon_surveys_ask(struct moon_surveys *surveys, struct moon_slice query,
                      struct moon_admin_wait *wait)
{
    struct moon_gateway *gateway = surveys->gateway;
    unsigned count = gateway->seat_count;
    size_t limit;
    if (!read_limit(query, &limit))
        return false;
    struct survey *survey = calloc(1, sizeof *survey + count * sizeof *survey->parts);
    if (!survey)
        abort();
    survey->surveys = surveys;
    survey->wait = wait;
    survey->limit = limit;
    survey->part_count = survey->missing_count = count;
    survey->timer.fn = on_timer;
    wait->order = survey;
    wait->forget = forget;
    moon_list_add_before(&surveys->all, &survey->node);
    moon_loop_timer_add(gateway->control.loop, &survey->timer, PATIENCE_MS);
    for (unsigned i = 0; i < count; i++) {
        survey->parts[i].limit = limit / count + (i < limit % count);
        survey->parts[i].worker = i;
        survey->parts[i].on_surveyed = on_surveyed;
        survey->parts[i].owner = survey;
        moon_worker_survey(gateway->seats[i].worker, &survey->parts[i]);
    }
    return true;
}

void moon_surveys_init(struct moon_surveys *surveys, struct moon_gateway *gateway)
{
    surveys->gateway = gateway;
    surveys->mailbox = moon_mailbox_new(gateway->control.loop, on_message, surveys);
    moon_list_init(&surveys->all);
}

void moon_surveys_fini(struct moon_surveys *surveys)
{
    if (!surveys->mailbox)
        return;
    while (!moon_list_is_empty(&surveys->all))
        survey_free(MOON_CONTAINER(surveys->all.next, struct survey, node));
    moon_mailbox_free(surveys->mailbox);
}
