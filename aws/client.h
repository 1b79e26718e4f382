/* client.h - one AWS client: credentials, endpoints, signing, retries, errors. The services stand
 * on it.
 *
 * An Aws belongs to one thread; aws_again makes another for another thread that shares the
 * credentials (they are refreshed in one place). Every wait ends at once when the Stop is
 * requested.
 *
 * Errors are ERR_AWS with the service's own code in err->code ("KMSKeyNotAccessibleFault"), the
 * request id in the text, what to do in the hint, and `transient` where the same call may work
 * later. ERR_CONFIG when no credentials, region or endpoint can be found, ERR_STOPPED when stopped.
 */
#ifndef AWS_CLIENT_H
#define AWS_CLIENT_H

#include "aws/value.h"
#include "engine/base/arena.h"
#include "engine/base/err.h"
#include "engine/base/stop.h"

typedef struct Aws Aws;

#define AWS_RUN_TAG "keybridge:run"

typedef struct AwsOptions {
    const char *region;   /* NULL: AWS_REGION, AWS_DEFAULT_REGION, the profile's */
    const char *profile;  /* NULL: AWS_PROFILE, then "default" */
    const char *endpoint; /* for every service; NULL: the environment's and the profile's overrides,
                             then AWS's own */
    const char *run;     /* value of the tag keybridge:run that everything made by this client gets;
                            NULL: none */
    const Stop *stop;    /* NULL: can't be stopped */
    unsigned attempts;   /* of one call, at most; 0: AWS_MAX_ATTEMPTS, the profile's max_attempts,
                            then 8 */
    unsigned timeout_ms; /* of one attempt; 0: 60 s */
    unsigned poll_ms;    /* longest pause between two looks while waiting for a state; 0: 15 s */
    unsigned retry_ms;   /* unit of the pauses between attempts; 0: 1 s */
} AwsOptions;

/* No call is made and no credential looked for before the first use. The texts are copied. */
MUST_USE Aws *aws_open(const AwsOptions *options, Err *err);
MUST_USE Aws *aws_again(const Aws *aws, Err *err);
void aws_free(Aws *aws); /* NULL is fine */

/* The region, found as AwsOptions says; fails when there is none. Valid as long as the client. */
MUST_USE bool aws_region(Aws *aws, const char **region, Err *err);
const char *aws_run(const Aws *aws); /* NULL: none */
/* True for tags of a thing that this run made. False when the client has no run. */
bool aws_is_ours(const Aws *aws, AwsTags tags);

/* Waiting for a state ------------------------------------------------------------------------ */

typedef enum AwsState { AWS_STATE_WAIT, AWS_STATE_READY, AWS_STATE_FAILED } AwsState;

typedef struct AwsProgress {
    AwsState state;
    char status[64];    /* the service's own word: "copying" */
    int percent;        /* -1: the service doesn't say */
    uint64_t waited_ms; /* since aws_wait was called */
} AwsProgress;

typedef void AwsProgressFn(void *self, const AwsProgress *progress);

typedef struct AwsWait {
    const char *what; /* "snapshot x", for errors */
    /* Fill state, status and percent. A transient failure is looked at again, any other ends the
     * wait. */
    bool (*look)(void *self, AwsProgress *progress, Err *err);
    void *self;
    AwsProgressFn *progress; /* after every look; NULL: nobody wants to know */
    void *progress_self;
} AwsWait;

/* Until READY; no limit but the stop. FAILED is ERR_AWS with the status as code. */
MUST_USE bool aws_wait(Aws *aws, const AwsWait *wait, Err *err);

#endif
