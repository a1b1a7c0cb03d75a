/*
 * The latch of slots of format 1 (shm/FORMAT.md, sections 2, 3, 5 and 6) under a weak memory.
 *
 * The writer publishes, gives room up, is killed at any step, and has successors; the readers read without end. The
 * claim is that a reader gets whole versions only, never an older one after a newer one, and always gets one from a
 * segment whose writer is dead.
 *
 * Memory. A store of the writer waits in `pending` before it can be seen. Waiting stores become visible in any order;
 * a release store is issued only when none waits, and a full fence lets the writer go on only when none waits. That
 * the writer stands still there cannot be observed, as it takes nothing from its readers. A release store may itself
 * be passed by what follows it. Killing the writer loses what still waits, which also covers a compiler that moves
 * stores between fences. Loads of a reader that no acquire and no fence keeps apart are performed in any order, those
 * whose address depends on another load included: there the address is guessed, and an attempt that guessed wrong is
 * forgotten. Each reader writes nothing and sees the stores in one order, so one order for all of them loses nothing.
 *
 * Smaller than the format: SLOTS is 3 where format 1 has 4 (the status block, section 4, is the case SLOTS = 2); a room
 * is one of ROOMS places for a payload of two words; the room word and the descriptor, which its CRC ties together,
 * are one word; checksums of payloads are left out, so that nothing but the counters can tell a mixture.
 */

#ifndef SLOTS
#define SLOTS 3 /* up to 4 */
#endif
#ifndef ROOMS
#define ROOMS 2 /* 2 or 3 */
#endif
#ifndef READERS
#define READERS 2
#endif
#ifndef VERSIONS
#define VERSIONS 4 /* up to 7; SLOTS + 1 laps a reader */
#endif
#ifndef LIVES
#define LIVES 2 /* of the writer, up to 3; each may end at any step */
#endif

#define NONE 255

/* The content of a version differs with the writer that wrote it: a version begun in vain is written anew. */
#define CONTENT(version, writer) ((version) * 4 + (writer))
/* Room word and descriptor; 0 is the room word 0. */
#define SLOT_WORD(room, content) ((content) * ROOMS + (room) + 1)
#define ROOM_OF(word) (((word) - 1) % ROOMS)

/* What can be seen: the words of sections 1 to 3. */
byte latest;
byte counter[SLOTS];
byte slot_word[SLOTS];
byte payload0[ROOMS];
byte payload1[ROOMS];

/* Stores of the writer that cannot be seen yet, by place; `pending` counts them. */
byte pending;
byte next_latest = NONE;
byte next_counter[SLOTS] = NONE;
byte next_slot_word[SLOTS] = NONE;
byte next_payload0[ROOMS] = NONE;
byte next_payload1[ROOMS] = NONE;

/* For the properties alone. */
byte life = 1;
bool dead;                    /* the last writer is gone */
byte published[VERSIONS + 1]; /* by which life */
bool mixture, going_back, blocked, lapped;

/* A search for one property alone, so that an ablation is known to break that very one. */
#ifdef ONLY_MIXTURE
#define NO_CHECK_OF_GOING_BACK
#define NO_CHECK_OF_BLOCKED
#endif
#ifdef ONLY_GOING_BACK
#define NO_CHECK_OF_MIXTURE
#define NO_CHECK_OF_BLOCKED
#endif
#ifdef ONLY_BLOCKED
#define NO_CHECK_OF_MIXTURE
#define NO_CHECK_OF_GOING_BACK
#endif

/* Not a property but a sight: that the model laps its readers is shown by a search that finds it. */
#ifdef ONLY_LAPPED
#define NO_CHECK_OF_MIXTURE
#define NO_CHECK_OF_GOING_BACK
#define NO_CHECK_OF_BLOCKED
#define CHECK_LAPPED(found) lapped = (found); assert(!lapped)
#else
#define CHECK_LAPPED(found) skip
#endif

#ifdef NO_CHECK_OF_MIXTURE
#define CHECK_MIXTURE(found) skip
#else
#define CHECK_MIXTURE(found) mixture = (found); assert(!mixture)
#endif
#ifdef NO_CHECK_OF_GOING_BACK
#define CHECK_GOING_BACK(found) skip
#else
#define CHECK_GOING_BACK(found) going_back = (found); assert(!going_back)
#endif
#ifdef NO_CHECK_OF_BLOCKED
#define CHECK_BLOCKED(found) skip
#else
#define CHECK_BLOCKED(found) blocked = (found); assert(!blocked)
#endif

/* --- the writer's stores ----------------------------------------------------------------------------------------- */

#define DRAINED (pending == 0)

#define STORE(next, value) assert(next == NONE); next = (value); pending++

#define BECOMES_VISIBLE(memory, next) d_step { next != NONE -> memory = next; next = NONE; pending-- }

active proctype store_buffer()
{
end:
	do
	:: d_step {
		next_latest != NONE ->
		latest = next_latest; next_latest = NONE; pending--;
		published[latest] = life
	}
	:: BECOMES_VISIBLE(counter[0], next_counter[0])
	:: BECOMES_VISIBLE(slot_word[0], next_slot_word[0])
#if SLOTS > 1
	:: BECOMES_VISIBLE(counter[1], next_counter[1])
	:: BECOMES_VISIBLE(slot_word[1], next_slot_word[1])
#endif
#if SLOTS > 2
	:: BECOMES_VISIBLE(counter[2], next_counter[2])
	:: BECOMES_VISIBLE(slot_word[2], next_slot_word[2])
#endif
#if SLOTS > 3
	:: BECOMES_VISIBLE(counter[3], next_counter[3])
	:: BECOMES_VISIBLE(slot_word[3], next_slot_word[3])
#endif
	:: BECOMES_VISIBLE(payload0[0], next_payload0[0])
	:: BECOMES_VISIBLE(payload1[0], next_payload1[0])
	:: BECOMES_VISIBLE(payload0[1], next_payload0[1])
	:: BECOMES_VISIBLE(payload1[1], next_payload1[1])
#if ROOMS > 2
	:: BECOMES_VISIBLE(payload0[2], next_payload0[2])
	:: BECOMES_VISIBLE(payload1[2], next_payload1[2])
#endif
	od
}

/* --- section 6: writing ------------------------------------------------------------------------------------------ */

#ifdef ODD_IS_RELEASE
#define RELEASE_OF_ODD DRAINED
#else
#define RELEASE_OF_ODD true
#endif
#ifdef NO_WRITER_FENCE
#define FENCE_AFTER_ODD true
#else
#define FENCE_AFTER_ODD DRAINED
#endif
#ifdef NO_GIVE_UP_FENCE
#define FENCE_AFTER_ZERO true
#else
#define FENCE_AFTER_ZERO DRAINED
#endif
#ifdef NO_RELEASE_OF_COUNTER
#define RELEASE_OF_COUNTER true
#else
#define RELEASE_OF_COUNTER DRAINED
#endif
#ifdef NO_RELEASE_OF_LATEST
#define RELEASE_OF_LATEST true
#else
#define RELEASE_OF_LATEST DRAINED
#endif

/* The writer loads its own stores, seen by others or not. */
#define OWN(memory, next) (next != NONE -> next : memory)
#define OWN_SLOT_WORD(s) OWN(slot_word[s], next_slot_word[s])

/* Slots beyond SLOTS own nothing. The slot that the version will use counts as free. */
#define OWNS(s, room) (s != TARGET && OWN_SLOT_WORD(s) != 0 && ROOM_OF(OWN_SLOT_WORD(s)) == room)
#if SLOTS == 1
#define FREE(room) true
#elif SLOTS == 2
#define FREE(room) (!OWNS(0, room) && !OWNS(1, room))
#elif SLOTS == 3
#define FREE(room) (!OWNS(0, room) && !OWNS(1, room) && !OWNS(2, room))
#else
#define FREE(room) (!OWNS(0, room) && !OWNS(1, room) && !OWNS(2, room) && !OWNS(3, room))
#endif

#define TARGET (version % SLOTS)
#ifdef GIVE_UP_LATEST
#define MAY_GIVE_UP(s) (s != TARGET && OWN_SLOT_WORD(s) != 0)
#else
#define MAY_GIVE_UP(s) (s != TARGET && s != (version - 1) % SLOTS && OWN_SLOT_WORD(s) != 0)
#endif

/* Odd, beyond `latest`, or emptied by half: not a version to keep. */
#ifdef KEEP_UNFINISHED
#define UNFINISHED(s) false
#else
#define UNFINISHED(s) \
	(counter[s] % 2 == 1 || counter[s] > 2 * latest || (counter[s] == 0 && slot_word[s] != 0))
#endif

#define KILLED(label) \
	d_step { \
		next_latest = NONE; \
		for (slot : 0 .. SLOTS - 1) { next_counter[slot] = NONE; next_slot_word[slot] = NONE } \
		for (room : 0 .. ROOMS - 1) { next_payload0[room] = NONE; next_payload1[room] = NONE } \
		pending = 0; version = 0; room = 0; slot = 0; life++ \
	}; \
	goto label

/* One step of the writer, taken once `condition` holds; it may be killed before it. */
#define STEP(condition, stores) \
	if \
	:: d_step { (condition) -> stores } \
	:: KILLED(successor) \
	fi

active proctype writer()
{
	byte version, room, slot;

successor:
	if
	:: d_step { life > LIVES -> dead = true; life = LIVES }; goto over
	:: else
	fi;

	/* Taking over: slots that the predecessor did not finish become empty, as in giving up below. */
	do
	:: d_step { UNFINISHED(0) && DRAINED -> slot = 0 }; goto empty_slot
#if SLOTS > 1
	:: d_step { UNFINISHED(1) && DRAINED -> slot = 1 }; goto empty_slot
#endif
#if SLOTS > 2
	:: d_step { UNFINISHED(2) && DRAINED -> slot = 2 }; goto empty_slot
#endif
#if SLOTS > 3
	:: d_step { UNFINISHED(3) && DRAINED -> slot = 3 }; goto empty_slot
#endif
	:: d_step {
		DRAINED && !UNFINISHED(0) && !UNFINISHED(1 % SLOTS) && !UNFINISHED(2 % SLOTS) && !UNFINISHED(3 % SLOTS) ->
#ifdef NUMBERS_BEGIN_ANEW
		version = 0
#else
		version = latest
#endif
	}; break
	:: KILLED(successor);
empty_slot:
	STEP(DRAINED, STORE(next_counter[slot], 0));
	STEP(DRAINED, STORE(next_slot_word[slot], 0); slot = 0)
	od;

	do
	:: d_step { version == VERSIONS -> version = 0 }; KILLED(successor)
	:: d_step { version < VERSIONS -> version++ };

		/* Step 1: room that no slot owns, but this version's; other slots, but that of `latest`, are given up. */
		do
		:: d_step { FREE(0) -> room = 0 }; break
		:: d_step { FREE(1) -> room = 1 }; break
#if ROOMS > 2
		:: d_step { FREE(2) -> room = 2 }; break
#endif
		:: d_step { MAY_GIVE_UP(0) -> slot = 0 }; goto give_up
#if SLOTS > 1
		:: d_step { MAY_GIVE_UP(1) -> slot = 1 }; goto give_up
#endif
#if SLOTS > 2
		:: d_step { MAY_GIVE_UP(2) -> slot = 2 }; goto give_up
#endif
#if SLOTS > 3
		:: d_step { MAY_GIVE_UP(3) -> slot = 3 }; goto give_up
#endif
		:: KILLED(successor);
give_up:
#ifndef REUSE_WITHOUT_ZERO
		/* Counter 0 (release), then a full fence, which pairs with the fence of step 5 of reading: whoever sees the
		   room word 0, or what is stored in the room later, sees the zero. */
		STEP(DRAINED, STORE(next_counter[slot], 0));
#endif
		STEP(FENCE_AFTER_ZERO, STORE(next_slot_word[slot], 0); slot = 0)
		od;

		/* Step 2: the odd counter; the full fence pairs with the fence of step 5 of reading: whoever sees one of the
		   stores of step 3 sees the odd counter. */
#ifdef LATEST_FIRST
		STEP(DRAINED, STORE(next_latest, version));
#endif
		STEP(RELEASE_OF_ODD, STORE(next_counter[TARGET], 2 * version - 1));

		/* Step 3: room word and descriptor, and the payload. */
		STEP(FENCE_AFTER_ODD,
			STORE(next_slot_word[TARGET], SLOT_WORD(room, CONTENT(version, life)));
			STORE(next_payload0[room], CONTENT(version, life));
			STORE(next_payload1[room], CONTENT(version, life));
			room = 0);

		/* Step 4: the release of the even counter pairs with the acquire load of step 2 of reading, that of `latest`
		   with the acquire load of step 1. */
		STEP(RELEASE_OF_COUNTER, STORE(next_counter[TARGET], 2 * version));
#ifndef LATEST_FIRST
		STEP(RELEASE_OF_LATEST, STORE(next_latest, version))
#endif
	od;
over:
	skip
}

/* --- section 5: reading ------------------------------------------------------------------------------------------ */

/* Without the acquire of step 1 the version read is a guess, until `latest` is loaded. */
#ifdef NO_ACQUIRE_OF_LATEST
#define GUESSED
#define AFTER_LATEST true
#else
#define AFTER_LATEST latest_loaded
#endif
#ifdef NO_ACQUIRE_OF_COUNTER
#define AFTER_COUNTER AFTER_LATEST
#else
#define AFTER_COUNTER counter_loaded
#endif
#define COPIED (latest_loaded && counter_loaded && slot_loaded && loaded0 && loaded1)
#ifdef NO_READER_FENCE
#define AFTER_FENCE counter_loaded
#else
#define AFTER_FENCE COPIED
#endif

#ifdef ANY_EVEN_COUNTER
#define STABLE (counter[version % SLOTS] % 2 == 0 && counter[version % SLOTS] != 0)
#define UNCHANGED (counter[version % SLOTS] == stable)
#else
#define STABLE (counter[version % SLOTS] == 2 * version)
#define UNCHANGED STABLE
#endif

#define FORGET \
	version = 0; content = 0; room = NONE; latest_loaded = false; counter_loaded = false; slot_loaded = false; \
	loaded0 = false; loaded1 = false; rechecked = false; mixed = false; calm = false

/* A word of the payload, from the room in the slot word, or from any where the slot word is yet to be loaded. */
#define LOAD(payload, loaded, place) \
	d_step { \
		!loaded && AFTER_COUNTER && (room == place || room == NONE) -> \
		room = place; loaded = true; mixed = mixed || payload[place] != content \
	}

active [READERS] proctype reader()
{
	byte seen;            /* the version of the last try */
	byte version;         /* of this try */
	byte content;         /* that this version was published with */
	byte room = NONE;
	bool latest_loaded, counter_loaded, slot_loaded, loaded0, loaded1, rechecked;
	bool mixed;           /* whether a word is not of this version */
	bool calm;            /* whether this try began after the last writer's end */
#ifdef ANY_EVEN_COUNTER
	byte stable;
#endif

end:
	do
	/* Step 1: `latest`, acquire; pairs with the release of `latest` in step 4 of writing. */
#ifdef GUESSED
	:: d_step {
		version == 0 && latest != 0 -> skip
	};
		if
		:: version = 1
		:: version = 2
		:: version = 3
		:: version = 4
		fi;
		if
		:: content = CONTENT(version, 1)
		:: content = CONTENT(version, 2)
		fi
	:: d_step {
		version != 0 && !latest_loaded && version == latest && content == CONTENT(latest, published[latest]) ->
#else
	:: d_step {
		version == 0 && latest != 0 ->
		version = latest;
		content = CONTENT(latest, published[latest]);
#endif
		CHECK_GOING_BACK(version < seen);
		seen = version;
		calm = dead;
#ifdef NO_FIRST_CHECK
		counter_loaded = true;
#endif
#ifdef NO_SECOND_CHECK
		rechecked = true;
#endif
		latest_loaded = true
	}
#ifdef GUESSED
	:: d_step { version != 0 && !latest_loaded && (version != latest || content != CONTENT(latest, published[latest])) -> FORGET }
#endif

	/* Step 2: the counter, acquire; pairs with the release of the even counter in step 4 of writing. */
	:: d_step {
		version != 0 && AFTER_LATEST && !counter_loaded && STABLE ->
#ifdef ANY_EVEN_COUNTER
		stable = counter[version % SLOTS];
#endif
		counter_loaded = true
	}
	:: d_step { version != 0 && AFTER_LATEST && !counter_loaded && !STABLE -> CHECK_BLOCKED(calm); FORGET }

	/* Steps 3 and 4: a room word that leads nowhere counts only after step 5. */
	:: d_step {
		version != 0 && AFTER_COUNTER && !slot_loaded && slot_word[version % SLOTS] == 0 ->
		slot_loaded = true; loaded0 = true; loaded1 = true; mixed = true
	}
	:: d_step {
		version != 0 && AFTER_COUNTER && !slot_loaded && slot_word[version % SLOTS] != 0 &&
			(room == NONE || room == ROOM_OF(slot_word[version % SLOTS])) ->
		room = ROOM_OF(slot_word[version % SLOTS]);
		mixed = mixed || slot_word[version % SLOTS] != SLOT_WORD(room, content);
		slot_loaded = true
	}
	:: d_step { /* guessed wrong */
		version != 0 && AFTER_COUNTER && !slot_loaded && slot_word[version % SLOTS] != 0 &&
			room != NONE && room != ROOM_OF(slot_word[version % SLOTS]) ->
		FORGET
	}
	:: LOAD(payload0, loaded0, 0)
	:: LOAD(payload0, loaded0, 1)
	:: LOAD(payload1, loaded1, 0)
	:: LOAD(payload1, loaded1, 1)
#if ROOMS > 2
	:: LOAD(payload0, loaded0, 2)
	:: LOAD(payload1, loaded1, 2)
#endif

	/* Step 5: the fence pairs with those after the odd counter and after the zero: whatever was copied, the counter
	   seen here is at least as new. */
	:: d_step { AFTER_FENCE && !rechecked && UNCHANGED -> rechecked = true }
	:: d_step {
		AFTER_FENCE && !rechecked && !UNCHANGED ->
		CHECK_BLOCKED(calm);
		CHECK_LAPPED(counter[version % SLOTS] > 2 * version);
		FORGET
	}

	/* What was copied is taken for this version. */
	:: d_step { COPIED && rechecked -> CHECK_MIXTURE(mixed); FORGET }
	od
}
