#include "textflag.h"

// Walks through trees, 8 rows at once, so that the other rows go on while one row waits
// for a load. The nodes of the rows are in R8…R15. The other registers:
//
//	DI AX BX  thresholds, columns, left children
//	SI        keys of this group of 8 rows
//	CX        4 · column, then the key
//	DX        steps left
//
// The comparison of a step sets the carry if the threshold is below the key, and the
// last instruction adds the carry to the left child.
#define STEP(NODE, LANE) \
	MOVL (AX)(NODE*4), CX        \
	MOVL (LANE*4)(SI)(CX*8), CX  \
	CMPL (DI)(NODE*4), CX        \
	MOVL (BX)(NODE*4), NODE      \
	ADCL $0, NODE

#define START \
	MOVQ  thresholds+0(FP), DI \
	MOVQ  columns+8(FP), AX    \
	MOVQ  left+16(FP), BX      \
	MOVL  root+24(FP), R8      \
	MOVL  depth+28(FP), DX     \
	MOVL  R8, R9               \
	MOVL  R8, R10              \
	MOVL  R8, R11              \
	MOVL  R8, R12              \
	MOVL  R8, R13              \
	MOVL  R8, R14              \
	MOVL  R8, R15              \
	TESTL DX, DX

#define STEPS \
	STEP(R8, 0)  \
	STEP(R9, 1)  \
	STEP(R10, 2) \
	STEP(R11, 3) \
	STEP(R12, 4) \
	STEP(R13, 5) \
	STEP(R14, 6) \
	STEP(R15, 7) \
	DECL DX

// ADD adds the value of a node to a row's result. BX points to the values, AX to the
// results.
#define ADD(NODE, LANE) \
	MOVSD (LANE*8)(AX), X0 \
	ADDSD (BX)(NODE*8), X0 \
	MOVSD X0, (LANE*8)(AX)

// ADDS is ADD for CX values per node, in columns that are 8 · stride bytes apart.
#define ADDS(NODE, LANE, NEXT) \
	IMULQ CX, NODE              \
	LEAQ  (BX)(NODE*8), NODE    \
	LEAQ  (LANE*8)(AX), DX      \
	XORL  DI, DI                \
NEXT:                           \
	MOVSD (DX), X0              \
	ADDSD (NODE)(DI*8), X0      \
	MOVSD X0, (DX)              \
	ADDQ  stride+80(FP), DX     \
	INCQ  DI                    \
	CMPQ  DI, CX                \
	JLT   NEXT

// func walkAdd(thresholds, columns, left *uint32, root, depth uint32, keys *uint32, cols, groups int, values *float64, width int, dst *float64, stride int)
TEXT ·walkAdd(SB), NOSPLIT, $0-88
	MOVQ keys+32(FP), SI
	SHLQ $3, stride+80(FP)

group:
	START
	JZ leaf

step:
	STEPS
	JNZ step

leaf:
	MOVQ dst+72(FP), AX
	MOVQ values+56(FP), BX
	MOVQ width+64(FP), CX
	CMPQ CX, $1
	JNE  several
	ADD(R8, 0)
	ADD(R9, 1)
	ADD(R10, 2)
	ADD(R11, 3)
	ADD(R12, 4)
	ADD(R13, 5)
	ADD(R14, 6)
	ADD(R15, 7)

next:
	ADDQ $64, dst+72(FP)
	MOVQ cols+40(FP), AX
	SHLQ $5, AX
	ADDQ AX, SI
	DECQ groups+48(FP)
	JNZ  group
	RET

several:
	ADDS(R8, 0, lane0)
	ADDS(R9, 1, lane1)
	ADDS(R10, 2, lane2)
	ADDS(R11, 3, lane3)
	ADDS(R12, 4, lane4)
	ADDS(R13, 5, lane5)
	ADDS(R14, 6, lane6)
	ADDS(R15, 7, lane7)
	JMP  next

// WIDE is STEP for keys with 64 bits.
#define WIDE(NODE, LANE) \
	MOVL (AX)(NODE*4), CX        \
	MOVQ (LANE*8)(SI)(CX*8), CX  \
	CMPQ (DI)(NODE*8), CX        \
	MOVL (BX)(NODE*4), NODE      \
	ADCL $0, NODE

// func walkAddWide(thresholds *uint64, columns, left *uint32, root, depth uint32, keys *uint64, cols, groups int, values, dst *float64)
TEXT ·walkAddWide(SB), NOSPLIT, $0-72
	MOVQ keys+32(FP), SI

group:
	START
	JZ leaf

step:
	WIDE(R8, 0)
	WIDE(R9, 1)
	WIDE(R10, 2)
	WIDE(R11, 3)
	WIDE(R12, 4)
	WIDE(R13, 5)
	WIDE(R14, 6)
	WIDE(R15, 7)
	DECL DX
	JNZ  step

leaf:
	MOVQ dst+64(FP), AX
	MOVQ values+56(FP), BX
	ADD(R8, 0)
	ADD(R9, 1)
	ADD(R10, 2)
	ADD(R11, 3)
	ADD(R12, 4)
	ADD(R13, 5)
	ADD(R14, 6)
	ADD(R15, 7)
	ADDQ $64, dst+64(FP)
	MOVQ cols+40(FP), AX
	SHLQ $6, AX
	ADDQ AX, SI
	DECQ groups+48(FP)
	JNZ  group
	RET
