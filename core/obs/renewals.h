// What has become of the certificates that the gateway obtains by itself (ACME): told by who obtains them, read out by admin/.
// Of the control thread.
#pragma once

#include <stdint.h>
#include <stdio.h>

struct moon_renewals;

struct moon_renewal {
    const char *path; // of its file: which one it is
    const char *host;
    const char *error; // of the last try; "" where it went well, or there was none yet
    int64_t expires_s; // 1970; 0: there is none yet
    int64_t next_s;    // when the next try is due
    uint64_t obtained_total, failures_total;
};

struct moon_renewals *moon_renewals_new(void);
// NULL is fine.
void moon_renewals_free(struct moon_renewals *renewals);
// Puts one there, or in the place of the one with its path. Copied.
void moon_renewals_set(struct moon_renewals *renewals, const struct moon_renewal *renewal);
// Harmless where there is none.
void moon_renewals_del(struct moon_renewals *renewals, const char *path);
// In order of their coming; NULL behind the last.
const struct moon_renewal *moon_renewals_at(const struct moon_renewals *renewals, size_t index);
// [{"host":...,"file":...,"expires":1700000000,"next":...,"obtained":1,"failures":0,"error":null}]
void moon_renewals_write_json(const struct moon_renewals *renewals, FILE *out);
