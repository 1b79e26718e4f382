/* route53.h - hosted zones and the one record that a switch changes.
 *
 * Names are compared without a trailing dot and without case. Errors: aws/client.h.
 */
#ifndef AWS_ROUTE53_H
#define AWS_ROUTE53_H

#include "aws/client.h"

typedef struct Route53Zone {
    const char *id;   /* without "/hostedzone/" */
    const char *name; /* with its trailing dot, as sent */
    bool is_private;
} Route53Zone;

typedef struct Route53Record {
    const char *name, *type;
    AwsNum ttl;         /* unset for an alias */
    AwsNames values;    /* empty for an alias */
    const char *set_id; /* SetIdentifier; NULL for a simple record */
    AwsNum weight;
    const char *region, *failover, *health_check, *policy_instance;
    AwsBool multi_value;
    const char *alias_zone, *alias_name; /* AliasTarget */
    AwsBool alias_health;
    const char *geo_continent, *geo_country, *geo_subdivision;
    const char *rest; /* names an attribute of the record that isn't in this struct, so it can't be
                         repeated; else NULL */
} Route53Record;

typedef struct Route53Records {
    Route53Record *at;
    size_t count;
} Route53Records;

/* By id ("Z…", "/hostedzone/Z…") or by name. Several zones of one name (public and private) are an
 * error that lists their ids. */
MUST_USE bool route53_find_zone(Aws *aws, const char *zone, Arena *arena, Route53Zone *out,
                                Err *err);
/* The zone that holds a name: the longest zone name that it ends with. */
MUST_USE bool route53_zone_of(Aws *aws, const char *name, Arena *arena, Route53Zone *out, Err *err);
MUST_USE bool route53_list_records(Aws *aws, const char *zone_id, Arena *arena, Route53Records *all,
                                   Err *err);
/* set_id NULL: the simple record; fails when there are only weighted ones and says which. *found
 * NULL when there is none. */
MUST_USE bool route53_find_record(Aws *aws, const char *zone_id, const char *name, const char *type,
                                  const char *set_id, Arena *arena, Route53Record **found,
                                  Err *err);
/* Replaces the record, so everything in it is sent: read it, change what shall change, put it.
 * `change` gets the id to wait for. */
MUST_USE bool route53_upsert(Aws *aws, const char *zone_id, const Route53Record *record,
                             const char *comment, Arena *arena, const char **change, Err *err);
MUST_USE bool route53_get_change(Aws *aws, const char *change, bool *insync, Err *err);
/* Until all of Route 53's servers have it. */
MUST_USE bool route53_wait_change(Aws *aws, const char *change, AwsProgressFn *progress, void *self,
                                  Err *err);

#endif
