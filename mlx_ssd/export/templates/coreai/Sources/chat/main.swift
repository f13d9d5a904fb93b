import Foundation
import Student

// chat FOLDER PROMPT
let student = try await Student(folder: URL(filePath: CommandLine.arguments[1]))
print(try await student.answer(CommandLine.arguments[2]))
