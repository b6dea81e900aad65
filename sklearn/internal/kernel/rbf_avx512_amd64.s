#include "textflag.h"

// The RBF kernel for AVX-512. Each pass computes 32 rows in four vectors of 8. Support
// vectors are taken one after the other, so that terms are added in libsvm's order.
//
// The registers have these contents everywhere:
//
//	Z0…Z3    sums of the rows
//	Z4…Z7    the first of two support vectors: distance, then as in EXP2
//	Z8…Z11   rows; then as in EXP2
//	Z12…Z15  differences; then as in EXP2
//	Z16…Z19  the second support vector: as in Z4…Z7
//	Z20…Z25  coefficients 1 to 6 of the polynomial; Z26 its constant, 1
//	Z27      1.5·2⁴⁸
//	Z28      a broadcast value: a feature of a support vector, or a coefficient
//	Z29 Z30  2^(i/16) for i from 8 on, and from 0 on
//	Z31      factor
//	DI SI    sums and rows of this pass        R8   passes left
//	R9       bytes between columns             R10  support vectors
//	R11      their coefficients                R12  number of support vectors
//	R13      dims                              R14  bytes of a support vector
//	BX DX    positions in vectors and coefficients; CX  number of them left
//	AX R15   features left, the rows' current column

// DIFFERENCES subtracts a feature of a support vector from the four vectors of
// rows.
#define DIFFERENCES \
	VSUBPD Z28, Z8, Z12  \
	VSUBPD Z28, Z9, Z13  \
	VSUBPD Z28, Z10, Z14 \
	VSUBPD Z28, Z11, Z15

// EXP2 adds coefficient · 2^(factor·d²) to the sums for the squared distances in T0…T3.
// It overwrites T0…T3, Z8…Z15 and Z28.
//
// With t = factor·d², the low bits of t + 1.5·2⁴⁸ are the nearest sixteenth of t. They
// choose 2^(i/16) from the table. The rest, r, is at most 1/32 from 0, so six
// coefficients are enough. t − r = n + i/16, and VSCALEFPD uses n, rounded down. It
// also makes 0 of values that are far too small, and VREDUCEPD makes r = 0 for t = −∞.
#define EXP2(T0, T1, T2, T3) \
	VMULPD       Z31, T0, T0        \ // t
	VMULPD       Z31, T1, T1        \
	VMULPD       Z31, T2, T2        \
	VMULPD       Z31, T3, T3        \
	VADDPD       Z27, T0, Z12       \ // its sixteenths, in the low bits
	VADDPD       Z27, T1, Z13       \
	VADDPD       Z27, T2, Z14       \
	VADDPD       Z27, T3, Z15       \
	VPERMI2PD    Z29, Z30, Z12      \ // 2^(i/16)
	VPERMI2PD    Z29, Z30, Z13      \
	VPERMI2PD    Z29, Z30, Z14      \
	VPERMI2PD    Z29, Z30, Z15      \
	VREDUCEPD    $0x40, T0, Z8      \ // r
	VREDUCEPD    $0x40, T1, Z9      \
	VREDUCEPD    $0x40, T2, Z10     \
	VREDUCEPD    $0x40, T3, Z11     \
	VSUBPD       Z8, T0, T0         \ // n + i/16
	VSUBPD       Z9, T1, T1         \
	VSUBPD       Z10, T2, T2        \
	VSUBPD       Z11, T3, T3        \
	VSCALEFPD    T0, Z12, Z12       \ // 2^(n + i/16)
	VSCALEFPD    T1, Z13, Z13       \
	VSCALEFPD    T2, Z14, Z14       \
	VSCALEFPD    T3, Z15, Z15       \
	VMOVAPD      Z25, T0            \ // the polynomial, by Horner
	VMOVAPD      Z25, T1            \
	VMOVAPD      Z25, T2            \
	VMOVAPD      Z25, T3            \
	VFMADD213PD  Z24, Z8, T0        \
	VFMADD213PD  Z24, Z9, T1        \
	VFMADD213PD  Z24, Z10, T2       \
	VFMADD213PD  Z24, Z11, T3       \
	VFMADD213PD  Z23, Z8, T0        \
	VFMADD213PD  Z23, Z9, T1        \
	VFMADD213PD  Z23, Z10, T2       \
	VFMADD213PD  Z23, Z11, T3       \
	VFMADD213PD  Z22, Z8, T0        \
	VFMADD213PD  Z22, Z9, T1        \
	VFMADD213PD  Z22, Z10, T2       \
	VFMADD213PD  Z22, Z11, T3       \
	VFMADD213PD  Z21, Z8, T0        \
	VFMADD213PD  Z21, Z9, T1        \
	VFMADD213PD  Z21, Z10, T2       \
	VFMADD213PD  Z21, Z11, T3       \
	VFMADD213PD  Z20, Z8, T0        \
	VFMADD213PD  Z20, Z9, T1        \
	VFMADD213PD  Z20, Z10, T2       \
	VFMADD213PD  Z20, Z11, T3       \
	VFMADD213PD  Z26, Z8, T0        \
	VFMADD213PD  Z26, Z9, T1        \
	VFMADD213PD  Z26, Z10, T2       \
	VFMADD213PD  Z26, Z11, T3       \
	VBROADCASTSD (DX), Z28          \
	ADDQ         $8, DX             \
	VMULPD       Z28, Z12, Z12      \ // coefficient · 2^(n + i/16)
	VMULPD       Z28, Z13, Z13      \
	VMULPD       Z28, Z14, Z14      \
	VMULPD       Z28, Z15, Z15      \
	VFMADD231PD  T0, Z12, Z0        \
	VFMADD231PD  T1, Z13, Z1        \
	VFMADD231PD  T2, Z14, Z2        \
	VFMADD231PD  T3, Z15, Z3

// func rbfAVX512(sum, x *float64, passes, stride int, sv, coef *float64, count, dims int, factor float64)
TEXT ·rbfAVX512(SB), NOSPLIT, $0-72
	MOVQ         sum+0(FP), DI
	MOVQ         x+8(FP), SI
	MOVQ         passes+16(FP), R8
	MOVQ         stride+24(FP), R9
	SHLQ         $3, R9
	MOVQ         sv+32(FP), R10
	MOVQ         coef+40(FP), R11
	MOVQ         count+48(FP), R12
	MOVQ         dims+56(FP), R13
	LEAQ         (R13*8), R14
	VBROADCASTSD factor+64(FP), Z31
	VMOVUPD      ·exp2Table+0(SB), Z30
	VMOVUPD      ·exp2Table+64(SB), Z29
	VBROADCASTSD ·exp2Short+0(SB), Z20
	VBROADCASTSD ·exp2Short+8(SB), Z21
	VBROADCASTSD ·exp2Short+16(SB), Z22
	VBROADCASTSD ·exp2Short+24(SB), Z23
	VBROADCASTSD ·exp2Short+32(SB), Z24
	VBROADCASTSD ·exp2Short+40(SB), Z25
	VBROADCASTSD ·exp2Short+48(SB), Z26
	VBROADCASTSD ·exp2Short+56(SB), Z27

pass:
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1
	VPXORQ Z2, Z2, Z2
	VPXORQ Z3, Z3, Z3
	MOVQ   R10, BX
	MOVQ   R11, DX
	MOVQ   R12, CX
	CMPQ   R13, $1
	JEQ    one               // with one feature there are no loads to share
	SUBQ   $2, CX
	JLT    last

// Two support vectors are computed at once, which halves the loads of rows. Otherwise
// these loads would be the bottleneck, not the arithmetic.
two:
	MOVQ         R13, AX
	MOVQ         SI, R15
	VMOVUPD      (R15), Z8
	VMOVUPD      64(R15), Z9
	VMOVUPD      128(R15), Z10
	VMOVUPD      192(R15), Z11
	VBROADCASTSD (BX), Z28
	DIFFERENCES
	VMULPD       Z12, Z12, Z4
	VMULPD       Z13, Z13, Z5
	VMULPD       Z14, Z14, Z6
	VMULPD       Z15, Z15, Z7
	VBROADCASTSD (BX)(R14*1), Z28
	DIFFERENCES
	VMULPD       Z12, Z12, Z16
	VMULPD       Z13, Z13, Z17
	VMULPD       Z14, Z14, Z18
	VMULPD       Z15, Z15, Z19
	ADDQ         $8, BX
	DECQ         AX
	JZ           bothDone

feature:
	ADDQ         R9, R15
	VMOVUPD      (R15), Z8
	VMOVUPD      64(R15), Z9
	VMOVUPD      128(R15), Z10
	VMOVUPD      192(R15), Z11
	VBROADCASTSD (BX), Z28
	DIFFERENCES
	VFMADD231PD  Z12, Z12, Z4
	VFMADD231PD  Z13, Z13, Z5
	VFMADD231PD  Z14, Z14, Z6
	VFMADD231PD  Z15, Z15, Z7
	VBROADCASTSD (BX)(R14*1), Z28
	DIFFERENCES
	VFMADD231PD  Z12, Z12, Z16
	VFMADD231PD  Z13, Z13, Z17
	VFMADD231PD  Z14, Z14, Z18
	VFMADD231PD  Z15, Z15, Z19
	ADDQ         $8, BX
	DECQ         AX
	JNZ          feature

bothDone:
	ADDQ R14, BX
	EXP2(Z4, Z5, Z6, Z7)
	EXP2(Z16, Z17, Z18, Z19)
	SUBQ $2, CX
	JGE  two

last:
	ADDQ $2, CX
	JZ   store

one:
	MOVQ         R13, AX
	MOVQ         SI, R15
	VBROADCASTSD (BX), Z28
	VSUBPD       (R15), Z28, Z4
	VSUBPD       64(R15), Z28, Z5
	VSUBPD       128(R15), Z28, Z6
	VSUBPD       192(R15), Z28, Z7
	VMULPD       Z4, Z4, Z4
	VMULPD       Z5, Z5, Z5
	VMULPD       Z6, Z6, Z6
	VMULPD       Z7, Z7, Z7
	ADDQ         $8, BX
	DECQ         AX
	JZ           oneDone

oneFeature:
	ADDQ         R9, R15
	VBROADCASTSD (BX), Z28
	VSUBPD       (R15), Z28, Z12
	VSUBPD       64(R15), Z28, Z13
	VSUBPD       128(R15), Z28, Z14
	VSUBPD       192(R15), Z28, Z15
	VFMADD231PD  Z12, Z12, Z4
	VFMADD231PD  Z13, Z13, Z5
	VFMADD231PD  Z14, Z14, Z6
	VFMADD231PD  Z15, Z15, Z7
	ADDQ         $8, BX
	DECQ         AX
	JNZ          oneFeature

oneDone:
	EXP2(Z4, Z5, Z6, Z7)
	DECQ CX
	JNZ  one

store:
	VMOVUPD Z0, (DI)
	VMOVUPD Z1, 64(DI)
	VMOVUPD Z2, 128(DI)
	VMOVUPD Z3, 192(DI)
	ADDQ    $256, DI
	ADDQ    $256, SI
	DECQ    R8
	JNZ     pass
	VZEROUPPER
	RET

// func peakAVX512(n int)
TEXT ·peakAVX512(SB), NOSPLIT, $0-8
	MOVQ n+0(FP), CX

again:
	VFMADD231PD Z30, Z31, Z0
	VFMADD231PD Z30, Z31, Z1
	VFMADD231PD Z30, Z31, Z2
	VFMADD231PD Z30, Z31, Z3
	VFMADD231PD Z30, Z31, Z4
	VFMADD231PD Z30, Z31, Z5
	VFMADD231PD Z30, Z31, Z6
	VFMADD231PD Z30, Z31, Z7
	VFMADD231PD Z30, Z31, Z8
	VFMADD231PD Z30, Z31, Z9
	VFMADD231PD Z30, Z31, Z10
	VFMADD231PD Z30, Z31, Z11
	VFMADD231PD Z30, Z31, Z12
	VFMADD231PD Z30, Z31, Z13
	VFMADD231PD Z30, Z31, Z14
	VFMADD231PD Z30, Z31, Z15
	VFMADD231PD Z30, Z31, Z16
	VFMADD231PD Z30, Z31, Z17
	VFMADD231PD Z30, Z31, Z18
	VFMADD231PD Z30, Z31, Z19
	VFMADD231PD Z30, Z31, Z20
	VFMADD231PD Z30, Z31, Z21
	VFMADD231PD Z30, Z31, Z22
	VFMADD231PD Z30, Z31, Z23
	DECQ        CX
	JNZ         again
	VZEROUPPER
	RET
