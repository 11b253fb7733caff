// The compiled form of all matches: what a lookup walks. Immutable, shared by workers.
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct moon_head;
struct moon_index;
struct moon_match;
struct moon_route_scratch;

// Of the matches that are gRPC's, or of those that are not; they outlive the index.
struct moon_index *moon_index_new(const struct moon_match *matches, size_t count, bool is_grpc);
void moon_index_free(struct moon_index *index);
// As moon_routes_find.
int moon_index_find(const struct moon_index *index, const struct moon_head *head,
                    struct moon_route_scratch *scratch);
