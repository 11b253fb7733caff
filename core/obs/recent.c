// See recent.h. A ring under a lock: warnings are rare, and the lock is held for a copy.
#include "obs/recent.h"

#include "base/json.h"

#include <pthread.h>
#include <stdlib.h>

enum { RECORD_COUNT = 100, TEXT_LEN = 1000 };

struct record {
    uint64_t wall_ms;
    enum moon_log_level level;
    size_t len;
    char text[TEXT_LEN];
};

struct moon_recent {
    pthread_mutex_t lock;
    struct record records[RECORD_COUNT];
    size_t count; // ever added
};

struct moon_recent *moon_recent_new(void)
{
    struct moon_recent *recent = calloc(1, sizeof *recent);
    if (!recent)
        abort();
    pthread_mutex_init(&recent->lock, NULL);
    return recent;
}

void moon_recent_free(struct moon_recent *recent)
{
    if (!recent)
        return;
    pthread_mutex_destroy(&recent->lock);
    free(recent);
}

void moon_recent_add(struct moon_recent *recent, uint64_t wall_ms, enum moon_log_level level,
                     const char *text, size_t len)
{
    if (level < MOON_LOG_WARN)
        return;
    pthread_mutex_lock(&recent->lock);
    struct record *record = &recent->records[recent->count++ % RECORD_COUNT];
    record->wall_ms = wall_ms;
    record->level = level;
    record->len = len < TEXT_LEN ? len : TEXT_LEN;
    memcpy(record->text, text, record->len);
    pthread_mutex_unlock(&recent->lock);
}

void moon_recent_write_json(struct moon_recent *recent, FILE *out)
{
    pthread_mutex_lock(&recent->lock);
    size_t kept = recent->count < RECORD_COUNT ? recent->count : RECORD_COUNT;
    fputc('[', out);
    for (size_t i = 1; i <= kept; i++) {
        const struct record *record = &recent->records[(recent->count - i) % RECORD_COUNT];
        fprintf(out, "%s\n  {\"time_ms\":%llu,", i > 1 ? "," : "",
                (unsigned long long)record->wall_ms);
        moon_json_member(out, "level", moon_log_level_name(record->level));
        fputs(",\"message\":", out);
        moon_json_text(out, (struct moon_slice){record->text, record->len});
        fputc('}', out);
    }
    fputs("]\n", out);
    pthread_mutex_unlock(&recent->lock);
}
