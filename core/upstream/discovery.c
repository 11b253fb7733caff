// A lookup for each name in use: two questions (A, AAAA), then a pause.
//
//   ask --both answered--> take over -> publish where something changed -> wait for the TTL ------------------------> ask
//                      \-> a failure: what is known stays, the family that was answered is taken over -> wait 1 to 4 s -> ask
//                      \-> no such name: believed when it is said twice, a second apart -> wait `negative` -----------> ask
#include "upstream/discovery.h"

#include "base/err.h"
#include "conf/settings.h"
#include "io/loop.h"
#include "io/resolver.h"
#include "obs/log.h"
#include "upstream/registry.h"
#include "upstream/upstream.h"

#include <stdlib.h>
#include <string.h>

enum {
    TTL_MIN_S = 1,
    TTL_MAX_S = 86400,
    AGAIN_MS = 1000,
    AGAIN_DOUBLINGS = 2,
    ASK_GAP_US =
        // between two names, but for a few at once: more answers than a socket holds would be lost
    625,
    ASK_BURST_US = 10000,
    FAMILY_COUNT = 2,
};

static const enum moon_family families[FAMILY_COUNT] = {MOON_FAMILY_IPV4, MOON_FAMILY_IPV6};

struct addresses {
    struct moon_address *list; // malloc'd
    size_t count;
};

struct question {
    struct lookup *lookup;
    int err;
    struct addresses found;
    uint32_t ttl_s;
};

struct lookup {
    struct moon_list node; // in discovery->lookups, unless is_dropped
    struct moon_discovery *discovery;
    struct moon_name *name;
    struct moon_timer timer;
    struct question questions[FAMILY_COUNT];
    struct addresses known[FAMILY_COUNT], published; // the latter in order
    uint64_t good_ms;                                // when everything was answered last
    unsigned open_count;                             // questions not answered yet
    unsigned failure_count;                          // in a row
    bool was_missing; // the last answer said that there is no such name
    bool is_used, is_dropped, is_settled;
    bool has_turn; // its time to ask was set so that names do not ask all at once
};

struct moon_discovery {
    struct moon_loop *loop;
    const struct moon_log *log;
    struct moon_resolver *resolver; // made with the first name
    struct moon_snapshot *snapshot;
    const struct moon_settings *settings; // of the snapshot
    struct moon_list lookups;
    uint64_t next_us; // when the next name would ask, were all to keep the gap
    struct moon_timer settle_timer;
    void (*on_settled)(void *owner); // NULL: nobody waits for that
    void *settle_owner;
};

static void ask(struct lookup *lookup);

static struct addresses copy_of(const struct moon_address *list, size_t count)
{
    struct addresses copy = {calloc(count + 1, sizeof *list), count};
    if (!copy.list)
        abort();
    if (count)
        memcpy(copy.list, list, count * sizeof *list);
    return copy;
}

static void move(struct addresses *to, struct addresses *from)
{
    free(to->list);
    *to = *from;
    *from = (struct addresses){NULL, 0};
}

static void clear(struct addresses *addresses)
{
    free(addresses->list);
    *addresses = (struct addresses){NULL, 0};
}

// ---- publishing

static int compare(const void *a, const void *b)
{
    const struct moon_address *x = a, *y = b;
    return x->family != y->family ? x->family - y->family : memcmp(x->ip, y->ip, sizeof x->ip);
}

// All that is known, in order and without repetition: servers rotate their answers.
static struct addresses merge(const struct lookup *lookup)
{
    struct addresses all = {NULL, 0};
    size_t count = lookup->known[0].count + lookup->known[1].count, kept = 0;
    all.list = calloc(count + 1, sizeof *all.list);
    if (!all.list)
        abort();
    for (int i = 0; i < FAMILY_COUNT; i++)
        for (size_t k = 0; k < lookup->known[i].count; k++)
            all.list[all.count++] = lookup->known[i].list[k];
    qsort(all.list, all.count, sizeof *all.list, compare);
    for (size_t i = 0; i < all.count; i++)
        if (i == 0 || compare(&all.list[i], &all.list[i - 1]) != 0)
            all.list[kept++] = all.list[i];
    all.count = kept;
    return all;
}

static bool is_same(const struct addresses *a, const struct addresses *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (compare(&a->list[i], &b->list[i]) != 0)
            return false;
    return true;
}

static bool has_name(const struct moon_upstream *upstream, const struct moon_name *name)
{
    for (uint32_t i = 0; i < upstream->origin_count; i++)
        if (upstream->origins[i].name == name)
            return true;
    return false;
}

static void publish(struct lookup *lookup)
{
    struct moon_discovery *discovery = lookup->discovery;
    const struct moon_upstreams *upstreams = moon_snapshot_upstreams(discovery->snapshot);
    struct addresses all = merge(lookup);
    if (is_same(&all, &lookup->published)) {
        clear(&all);
        return;
    }
    // Where one address takes another's place all is as it should be, and it may happen many times a second.
    bool is_usual = all.count == lookup->published.count;
    moon_log_write(discovery->log, is_usual ? MOON_LOG_DEBUG : MOON_LOG_INFO,
                   "\"%.*s\" has %zu address%s now", MOON_SLICE_ARG(moon_name_host(lookup->name)),
                   all.count, all.count == 1 ? "" : "es");
    moon_name_set(lookup->name, all.list, all.count);
    move(&lookup->published, &all);
    for (size_t i = 0; i < moon_upstreams_count(upstreams); i++)
        if (has_name(moon_upstreams_at(upstreams, i), lookup->name))
            moon_upstream_refresh(moon_upstreams_at(upstreams, i));
}

// ---- the first answers

static void settled(struct moon_discovery *discovery)
{
    void (*fn)(void *owner) = discovery->on_settled;
    discovery->on_settled = NULL;
    moon_loop_timer_del(discovery->loop, &discovery->settle_timer);
    if (fn)
        fn(discovery->settle_owner);
}

static void on_settle_timer(struct moon_timer *timer)
{
    settled(MOON_CONTAINER(timer, struct moon_discovery, settle_timer));
}

static bool is_settled(const struct moon_discovery *discovery)
{
    const struct moon_list *all = &discovery->lookups;
    for (const struct moon_list *at = all->next; at != all; at = at->next)
        if (!MOON_CONTAINER(at, const struct lookup, node)->is_settled)
            return false;
    return true;
}

// ---- what the answers mean

static void wait(struct lookup *lookup, uint64_t ms)
{
    moon_loop_timer_add(lookup->discovery->loop, &lookup->timer, ms);
}

// At least one question found no answer.
static void failed(struct lookup *lookup, int err)
{
    const struct moon_settings *settings = lookup->discovery->settings;
    uint64_t now_ms = moon_loop_now_ms(lookup->discovery->loop);
    if (lookup->failure_count == 0)
        moon_log_warn(lookup->discovery->log, "cannot resolve \"%.*s\": %s; %s",
                      MOON_SLICE_ARG(moon_name_host(lookup->name)), moon_err_text(err),
                      lookup->published.count ? "its last addresses serve"
                                              : "it has no address yet");
    for (int i = 0; i < FAMILY_COUNT; i++)
        if (lookup->questions[i].err == 0)
            move(&lookup->known[i], &lookup->questions[i].found);
    if (settings->resolver.stale_ms && now_ms - lookup->good_ms >= settings->resolver.stale_ms)
        for (int i = 0; i < FAMILY_COUNT; i++)
            clear(&lookup->known[i]);
    unsigned doublings =
        lookup->failure_count < AGAIN_DOUBLINGS ? lookup->failure_count : AGAIN_DOUBLINGS;
    lookup->failure_count++;
    publish(lookup);
    wait(lookup, AGAIN_MS << doublings);
}

static void answered(struct lookup *lookup, bool is_missing, uint32_t ttl_s)
{
    const struct moon_settings *settings = lookup->discovery->settings;
    if (lookup->failure_count)
        moon_log_info(lookup->discovery->log, "\"%.*s\" is resolved again",
                      MOON_SLICE_ARG(moon_name_host(lookup->name)));
    lookup->failure_count = 0;
    lookup->good_ms = moon_loop_now_ms(lookup->discovery->loop);
    bool is_sure = !is_missing || lookup->was_missing || lookup->published.count == 0;
    if (is_missing && (!lookup->was_missing || lookup->published.count))
        moon_log_warn(lookup->discovery->log, "there is no \"%.*s\"",
                      MOON_SLICE_ARG(moon_name_host(lookup->name)));
    lookup->was_missing = is_missing;
    for (int i = 0; is_sure && i < FAMILY_COUNT; i++)
        move(&lookup->known[i], &lookup->questions[i].found);
    publish(lookup);
    if (is_missing)
        wait(lookup, is_sure ? settings->resolver.negative_ms : AGAIN_MS);
    else
        wait(lookup, (ttl_s < TTL_MIN_S   ? TTL_MIN_S
                      : ttl_s > TTL_MAX_S ? TTL_MAX_S
                                          : ttl_s) *
                         (uint64_t)1000);
}

static void all_answered(struct lookup *lookup)
{
    int err = 0;
    bool is_missing = true;
    uint32_t ttl_s = TTL_MAX_S;
    for (int i = 0; i < FAMILY_COUNT; i++) {
        const struct question *question = &lookup->questions[i];
        if (question->err && question->err != MOON_ENAME)
            err = question->err;
        if (question->err)
            continue;
        is_missing = false;
        ttl_s = question->ttl_s < ttl_s ? question->ttl_s : ttl_s;
    }
    if (err)
        failed(lookup, err);
    else
        answered(lookup, is_missing, ttl_s);
    for (int i = 0; i < FAMILY_COUNT; i++)
        clear(&lookup->questions[i].found);
    lookup->is_settled = true;
    if (lookup->discovery->on_settled && is_settled(lookup->discovery))
        settled(lookup->discovery);
}

// ---- lookups

static void lookup_free(struct lookup *lookup)
{
    for (int i = 0; i < FAMILY_COUNT; i++) {
        clear(&lookup->known[i]);
        clear(&lookup->questions[i].found);
    }
    clear(&lookup->published);
    moon_name_unref(lookup->name);
    free(lookup);
}

// Freed now, or with the last answer that is under way.
static void drop(struct lookup *lookup)
{
    moon_list_del(&lookup->node);
    moon_loop_timer_del(lookup->discovery->loop, &lookup->timer);
    lookup->is_dropped = true;
    if (lookup->open_count == 0)
        lookup_free(lookup);
}

static void on_resolved(void *owner, const struct moon_resolved *resolved)
{
    struct question *question = owner;
    struct lookup *lookup = question->lookup;
    question->err = resolved->err;
    question->ttl_s = resolved->ttl_s;
    clear(&question->found);
    if (!resolved->err)
        question->found = copy_of(resolved->addresses, resolved->count);
    if (--lookup->open_count > 0)
        return;
    if (lookup->is_dropped)
        lookup_free(lookup);
    else if (resolved->err == MOON_ECANCELED) // the resolver is replaced
        wait(lookup, 0);
    else
        all_answered(lookup);
}

static void ask(struct lookup *lookup)
{
    struct moon_resolver *resolver = lookup->discovery->resolver;
    lookup->open_count = FAMILY_COUNT; // answers may come at once
    for (int i = 0; i < FAMILY_COUNT; i++) {
        lookup->questions[i].lookup = lookup;
        if (resolver)
            moon_resolve(resolver, moon_name_host(lookup->name), families[i], on_resolved,
                         &lookup->questions[i]);
        else
            on_resolved(&lookup->questions[i], &(struct moon_resolved){.err = MOON_ENAME});
    }
}

// Names that were first asked for together would be so for ever. How long this one has to stand back, in milliseconds.
static uint64_t take_turn(struct moon_discovery *discovery)
{
    uint64_t now_us = moon_loop_now_ms(discovery->loop) * 1000;
    if (discovery->next_us < now_us)
        discovery->next_us = now_us;
    uint64_t ahead_us = discovery->next_us - now_us;
    discovery->next_us += ASK_GAP_US;
    return ahead_us > ASK_BURST_US ? (ahead_us - ASK_BURST_US) / 1000 : 0;
}

static void on_timer(struct moon_timer *timer)
{
    struct lookup *lookup = MOON_CONTAINER(timer, struct lookup, timer);
    uint64_t back_ms = lookup->has_turn ? 0 : take_turn(lookup->discovery);
    lookup->has_turn = back_ms > 0;
    if (back_ms)
        moon_loop_timer_add(lookup->discovery->loop, timer, back_ms);
    else
        ask(lookup);
}

static struct lookup *lookup_of(struct moon_discovery *discovery, const struct moon_name *name)
{
    struct moon_list *all = &discovery->lookups;
    for (struct moon_list *at = all->next; at != all; at = at->next) {
        struct lookup *lookup = MOON_CONTAINER(at, struct lookup, node);
        if (lookup->name == name)
            return lookup;
    }
    return NULL;
}

static void follow(struct moon_discovery *discovery, struct moon_name *name)
{
    struct lookup *lookup = lookup_of(discovery, name);
    if (!lookup) {
        lookup = calloc(1, sizeof *lookup);
        if (!lookup)
            abort();
        lookup->discovery = discovery;
        lookup->name = moon_name_ref(name);
        lookup->timer.fn = on_timer;
        lookup->good_ms = moon_loop_now_ms(discovery->loop);
        moon_list_add_before(&discovery->lookups, &lookup->node);
        wait(lookup, 0);
    }
    lookup->is_used = true;
}

// ---- public

struct moon_discovery *moon_discovery_new(struct moon_loop *loop, const struct moon_log *log)
{
    struct moon_discovery *discovery = calloc(1, sizeof *discovery);
    if (!discovery)
        abort();
    discovery->loop = loop;
    discovery->log = log;
    moon_list_init(&discovery->lookups);
    return discovery;
}

static void replace_resolver(struct moon_discovery *discovery)
{
    const struct moon_settings *settings = discovery->settings;
    struct moon_resolver *before = discovery->resolver;
    discovery->resolver = moon_resolver_new(
        discovery->loop,
        &(struct moon_resolver_options){.servers = settings->resolver.servers,
                                        .server_count = settings->resolver.server_count,
                                        .timeout_ms = settings->resolver.timeout_ms});
    if (!discovery->resolver)
        moon_log_warn(discovery->log, "there is no resolver: host names have no address");
    moon_resolver_free(before); // what it still had to answer is asked again
}

void moon_discovery_use(struct moon_discovery *discovery, struct moon_snapshot *snapshot)
{
    struct moon_snapshot *before = discovery->snapshot;
    const struct moon_upstreams *upstreams = moon_snapshot_upstreams(snapshot);
    struct moon_list *all = &discovery->lookups;
    discovery->snapshot = moon_snapshot_ref(snapshot);
    discovery->settings = moon_snapshot_settings(snapshot);
    for (struct moon_list *at = all->next; at != all; at = at->next)
        MOON_CONTAINER(at, struct lookup, node)->is_used = false;
    for (size_t i = 0; i < moon_upstreams_count(upstreams); i++) {
        struct moon_upstream *upstream = moon_upstreams_at(upstreams, i);
        bool has_names = false;
        for (uint32_t k = 0; k < upstream->origin_count; k++) {
            if (!upstream->origins[k].name)
                continue;
            follow(discovery, upstream->origins[k].name);
            has_names = true;
        }
        if (has_names) // an answer may have come since it was compiled
            moon_upstream_refresh(upstream);
    }
    for (struct moon_list *at = all->next, *next; at != all; at = next) {
        struct lookup *lookup = MOON_CONTAINER(at, struct lookup, node);
        next = at->next;
        if (!lookup->is_used)
            drop(lookup);
    }
    if (!moon_list_is_empty(all))
        replace_resolver(discovery);
    moon_snapshot_unref(before);
}

void moon_discovery_settle(struct moon_discovery *discovery, uint64_t within_ms,
                           void (*fn)(void *owner), void *owner)
{
    discovery->on_settled = fn;
    discovery->settle_owner = owner;
    discovery->settle_timer.fn = on_settle_timer;
    if (is_settled(discovery))
        settled(discovery);
    else
        moon_loop_timer_add(discovery->loop, &discovery->settle_timer, within_ms);
}

void moon_discovery_free(struct moon_discovery *discovery)
{
    if (!discovery)
        return;
    while (!moon_list_is_empty(&discovery->lookups))
        drop(MOON_CONTAINER(discovery->lookups.next, struct lookup, node));
    moon_loop_timer_del(discovery->loop, &discovery->settle_timer);
    moon_resolver_free(discovery->resolver);
    moon_snapshot_unref(discovery->snapshot);
    free(discovery);
}
