// A hash of entries by name, which are also in a list by their last use.
//
//   new -> asked -> known --due_ms--> asked ...        asked with an old answer: it serves meanwhile, if it is not too old
//                \-> missing or failed, with nothing old: said so until due_ms
#include "upstream/names.h"

#include "base/address.h"
#include "base/err.h"
#include "conf/settings.h"
#include "io/loop.h"
#include "link/resources.h"
#include "upstream/name_desk.h"

#include <stdlib.h>
#include <string.h>

enum {
    BUCKET_COUNT = 256,
    TTL_MIN_S = 1,
    TTL_MAX_S = 86400,
    GRACE_MS = 10000, // so long an old answer serves while the next one is under way
    AGAIN_MS = 1000,  // after a failure, twice doubled
    AGAIN_DOUBLINGS = 2,
};

struct entry {
    struct moon_list node; // in names->used, the latest first
    struct entry *next;    // in its bucket
    struct moon_names *names;
    struct moon_list waits; // of struct moon_name_wait
    struct moon_name_question question;
    struct moon_address *addresses; // malloc'd
    size_t count;
    int err; // when there are no addresses
    uint32_t turn;
    uint64_t good_ms, due_ms; // the last good answer; when to ask again
    unsigned failure_count;   // in a row
    bool is_asked;            // the desk has the question; then it stays
    bool was_missing;         // the last answer said that there is no such name
    char host[];              // its length stands in the question
};

struct moon_names {
    struct moon_resources *res;
    struct moon_name_desk *desk;
    struct moon_mailbox *mailbox;
    struct moon_list used;
    unsigned count;
    struct entry *buckets[BUCKET_COUNT];
};

// FNV-1a, letters folded.
static struct entry **bucket_of(struct moon_names *names, struct moon_slice host)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < host.len; i++)
        hash = (hash ^ ((uint8_t)host.ptr[i] | 0x20)) * 16777619u;
    return &names->buckets[(hash ^ hash >> 16) % BUCKET_COUNT];
}

static void entry_free(struct entry *entry)
{
    struct moon_names *names = entry->names;
    struct entry **at = bucket_of(names, entry->question.host);
    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
    moon_list_del(&entry->node);
    names->count--;
    free(entry->addresses);
    free(entry->question.addresses);
    free(entry);
}

// Makes room for one; false when the desk has all of them.
static bool make_room(struct moon_names *names)
{
    if (names->count < MOON_NAME_MAX_COUNT)
        return true;
    for (struct moon_list *at = names->used.prev; at != &names->used; at = at->prev) {
        struct entry *entry = MOON_CONTAINER(at, struct entry, node);
        if (entry->is_asked)
            continue;
        entry_free(entry);
        return true;
    }
    return false;
}

static struct entry *entry_new(struct moon_names *names, struct moon_slice host)
{
    struct entry *entry = calloc(1, sizeof *entry + host.len);
    struct entry **bucket = bucket_of(names, host);
    if (!entry)
        abort();
    memcpy(entry->host, host.ptr, host.len);
    entry->names = names;
    entry->question.host = (struct moon_slice){entry->host, host.len};
    entry->question.answer_to = names->mailbox;
    moon_list_init(&entry->waits);
    entry->next = *bucket;
    *bucket = entry;
    names->count++;
    return entry;
}

static struct entry *find(struct moon_names *names, struct moon_slice host)
{
    struct entry *entry = *bucket_of(names, host);
    while (entry && !moon_slice_equal_fold(entry->question.host, host))
        entry = entry->next;
    return entry;
}

static void answer_of(struct entry *entry, struct moon_name_answer *answer)
{
    *answer = (struct moon_name_answer){entry->count ? 0 : entry->err, entry->addresses,
                                        entry->count, entry->turn++};
}

// ---- answers

static void forget(struct entry *entry)
{
    free(entry->addresses);
    entry->addresses = NULL;
    entry->count = 0;
}

static uint64_t take_good(struct entry *entry)
{
    struct moon_name_question *question = &entry->question;
    uint32_t ttl_s = question->ttl_s < TTL_MIN_S   ? TTL_MIN_S
                     : question->ttl_s > TTL_MAX_S ? TTL_MAX_S
                                                   : question->ttl_s;
    forget(entry);
    entry->addresses = question->addresses;
    entry->count = question->count;
    question->addresses = NULL;
    entry->failure_count = 0;
    entry->was_missing = false;
    entry->good_ms = moon_loop_now_ms(entry->names->res->loop);
    return (uint64_t)ttl_s * 1000;
}

// A name that was there is believed to be gone when that is said twice.
static uint64_t take_missing(struct entry *entry)
{
    uint32_t negative_ms = entry->names->res->settings->resolver.negative_ms;
    bool is_sure = entry->was_missing || entry->count == 0;
    entry->failure_count = 0;
    entry->was_missing = true;
    if (!is_sure)
        return AGAIN_MS;
    forget(entry);
    return negative_ms > AGAIN_MS ? negative_ms : AGAIN_MS;
}

static uint64_t take_failure(struct entry *entry)
{
    uint32_t stale_ms = entry->names->res->settings->resolver.stale_ms;
    uint64_t now_ms = moon_loop_now_ms(entry->names->res->loop);
    unsigned doublings =
        entry->failure_count < AGAIN_DOUBLINGS ? entry->failure_count : AGAIN_DOUBLINGS;
    entry->failure_count++;
    if (stale_ms && now_ms - entry->good_ms >= stale_ms)
        forget(entry);
    return (uint64_t)AGAIN_MS << doublings;
}

static void tell(struct entry *entry)
{
    struct moon_name_answer answer;
    while (!moon_list_is_empty(&entry->waits)) {
        struct moon_name_wait *wait =
            MOON_CONTAINER(entry->waits.next, struct moon_name_wait, node);
        moon_list_del(&wait->node);
        answer_of(entry, &answer);
        wait->fn(wait, &answer);
    }
}

static void on_message(void *owner, struct moon_message *message)
{
    (void)owner;
    struct entry *entry = MOON_CONTAINER(message, struct entry, question.message);
    struct moon_name_question *question = &entry->question;
    uint64_t wait_ms = question->err == 0            ? take_good(entry)
                       : question->err == MOON_ENAME ? take_missing(entry)
                                                     : take_failure(entry);
    entry->err = question->err;
    entry->due_ms = moon_loop_now_ms(entry->names->res->loop) + wait_ms;
    free(question->addresses);
    question->addresses = NULL;
    tell(entry); // it still counts as asked, so that it stays whatever they do
    entry->is_asked = false;
}

// ---- public

bool moon_names_ask(struct moon_names *names, struct moon_slice host, struct moon_name_wait *wait,
                    struct moon_name_answer *answer)
{
    uint64_t now_ms = moon_loop_now_ms(names->res->loop);
    struct entry *entry = find(names, host);
    if (!entry && !make_room(names)) {
        *answer = (struct moon_name_answer){.err = MOON_EBUSY};
        return true;
    }
    if (!entry)
        entry = entry_new(names, host);
    moon_list_del(&entry->node);
    moon_list_add_after(&names->used, &entry->node);
    bool is_due = now_ms >= entry->due_ms;
    if (is_due && !entry->is_asked) {
        entry->is_asked = true;
        moon_name_desk_ask(names->desk, &entry->question);
    }
    bool serves = entry->count && (entry->failure_count || now_ms - entry->due_ms < GRACE_MS);
    if (!is_due || serves) {
        answer_of(entry, answer);
        return true;
    }
    moon_list_add_before(&entry->waits, &wait->node);
    return false;
}

void moon_name_wait_stop(struct moon_name_wait *wait)
{
    moon_list_del(&wait->node);
}

struct moon_names *moon_names_new(struct moon_resources *res, struct moon_name_desk *desk)
{
    struct moon_names *names = calloc(1, sizeof *names);
    if (!names)
        abort();
    names->res = res;
    names->desk = desk;
    names->mailbox = moon_mailbox_new(res->loop, on_message, names);
    moon_list_init(&names->used);
    return names;
}

void moon_names_free(struct moon_names *names)
{
    if (!names)
        return;
    while (!moon_list_is_empty(&names->used))
        entry_free(MOON_CONTAINER(names->used.next, struct entry, node));
    moon_mailbox_free(names->mailbox);
    free(names);
}
